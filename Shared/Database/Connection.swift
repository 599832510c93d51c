import CLibpq
import Glibc
import Kernel

/// One session with PostgreSQL. Used on its own thread only; bodies given to `Database` receive it.
package final class Connection {
    private var handle: OpaquePointer?
    private let configuration: DatabaseConfiguration
    private var prepared: [String: String] = [:]
    private var announcements: [Announcement] = []

    /// Asked before each statement; what it throws is the statement's failure. For simulation.
    package var beforeStatement: (() throws -> Void)?

    private static let preparedMax = 512

    package init(configuration: DatabaseConfiguration) { self.configuration = configuration }

    deinit { if let handle { PQfinish(handle) } }

    /// Runs a statement and returns its rows.
    ///
    /// - Throws: `DatabaseError`.
    @discardableResult
    package func query(_ sql: SQL) throws -> Rows {
        try beforeStatement?()
        let text = sql.text
        let name = try prepare(text)
        let values = try Values(sql.binds)
        defer { values.free() }
        let result = PQexecPrepared(
            try open(), name, Int32(values.pointers.count), values.pointers, values.lengths, values.formats, 0)
        return try check(result, statement: text)
    }

    /// Runs a statement for its effect; returns how many rows it touched.
    @discardableResult
    package func execute(_ sql: SQL) throws -> Int { try query(sql).affected }

    /// Runs one or more statements without binds: migrations, transaction control.
    package func script(_ text: String) throws {
        _ = try check(PQexec(try open(), text), statement: text)
    }

    private func prepare(_ text: String) throws -> String {
        if let name = prepared[text] { return name }
        if prepared.count >= Connection.preparedMax {
            try script("DEALLOCATE ALL")
            prepared = [:]
        }
        let name = "s\(prepared.count)"
        _ = try check(PQprepare(try open(), name, text, 0, nil), statement: text)
        prepared[text] = name
        return name
    }

    // MARK: session

    func open() throws -> OpaquePointer {
        if let handle, PQstatus(handle) == CONNECTION_OK { return handle }
        close()
        guard let fresh = PQconnectdb(configuration.connectionString) else {
            throw DatabaseError(sqlState: "08001", message: "out of memory", constraint: nil, table: nil, statement: nil)
        }
        guard PQstatus(fresh) == CONNECTION_OK else {
            let message = String(cString: PQerrorMessage(fresh))
            PQfinish(fresh)
            throw DatabaseError(sqlState: "08006", message: message, constraint: nil, table: nil, statement: nil)
        }
        handle = fresh
        PQsetNoticeProcessor(fresh, { _, _ in }, nil)
        try script("SET TIME ZONE 'UTC'")
        return fresh
    }

    func close() {
        if let handle { PQfinish(handle) }
        handle = nil
        prepared = [:]
    }

    var isBroken: Bool { handle.map { PQstatus($0) != CONNECTION_OK } ?? true }

    private func check(_ result: OpaquePointer?, statement: String) throws -> Rows {
        guard let result else {
            let message = handle.map { String(cString: PQerrorMessage($0)) } ?? "no connection"
            throw DatabaseError(
                sqlState: "08006", message: message, constraint: nil, table: nil, statement: statement)
        }
        let status = PQresultStatus(result)
        if status == PGRES_TUPLES_OK || status == PGRES_COMMAND_OK { return Rows(result: result) }
        defer { PQclear(result) }
        func field(_ code: Character) -> String? {
            PQresultErrorField(result, Int32(code.asciiValue ?? 0)).map { String(cString: $0) }
        }
        throw DatabaseError(
            sqlState: field("C") ?? "08006", message: field("M") ?? String(cString: PQresultErrorMessage(result)),
            constraint: field("n"), table: field("t"), statement: statement)
    }

    // MARK: transactions

    func transaction<Value>(begin: String = "BEGIN", _ body: (Connection) throws -> Value) throws -> Value {
        announcements = []
        try script(begin)
        let value: Value
        do { value = try body(self) } catch {
            if isBroken { close() } else { do { try script("ROLLBACK") } catch { close() } }
            throw error
        }
        do { try script("COMMIT") } catch var error as DatabaseError {
            error.commitUnknown = isBroken
            if isBroken { close() }
            throw error
        }
        return value
    }

    /// Runs `body` so that its failure undoes only what it did.
    package func savepoint<Value>(_ body: (Connection) throws -> Value) throws -> Value {
        try script("SAVEPOINT inner_step")
        do {
            let value = try body(self)
            try script("RELEASE SAVEPOINT inner_step")
            return value
        } catch {
            if !isBroken { try script("ROLLBACK TO SAVEPOINT inner_step") }
            throw error
        }
    }

    /// Sends a notification when the transaction commits.
    package func notify(_ channel: String, _ payload: String = "") throws {
        try query("SELECT pg_notify(\(channel), \(payload))")
    }

    // MARK: notifications

    /// Sends a hint once the transaction has committed: at once to this process, soon to the others. Unlike `notify`
    /// it holds up no other commit, and is lost when the process dies right after the commit.
    ///
    /// - Parameter everywhere: false for what concerns this process only.
    package func announce(_ channel: String, _ payload: String = "", everywhere: Bool = true) {
        announcements.append(
            Announcement(notification: Notification(channel: channel, payload: payload), everywhere: everywhere))
    }

    func takeAnnouncements() -> [Announcement] {
        defer { announcements = [] }
        return announcements
    }

    /// Waits for notifications until one arrives or `timeoutMilliseconds` pass.
    ///
    /// - Parameter isOwn: whether the notifications of a server's process are known already.
    package func awaitNotifications(timeoutMilliseconds: Int32, isOwn: (Int32) -> Bool) throws -> [Notification] {
        let handle = try open()
        var descriptor = pollfd(fd: PQsocket(handle), events: Int16(POLLIN), revents: 0)
        _ = poll(&descriptor, 1, timeoutMilliseconds)
        guard PQconsumeInput(handle) == 1, PQstatus(handle) == CONNECTION_OK else {
            close()
            throw DatabaseError(
                sqlState: "08006", message: "the session was closed", constraint: nil, table: nil, statement: nil)
        }
        var notifications: [Notification] = []
        while let next = PQnotifies(handle) {
            defer { PQfreemem(next) }
            if isOwn(next.pointee.be_pid) { continue }
            notifications.append(
                Notification(
                    channel: String(cString: next.pointee.relname), payload: String(cString: next.pointee.extra)))
        }
        return notifications
    }
}

/// Bind values as libpq takes them.
private struct Values {
    private(set) var pointers: [UnsafePointer<CChar>?] = []
    /// Of those that are bytes; libpq looks for the end of a text itself.
    private(set) var lengths: [Int32] = []
    private(set) var formats: [Int32] = []

    init(_ binds: [SQLBind]) throws {
        // libpq would read a text up to its first NUL; PostgreSQL has no such character anyway.
        for case .text(let text?) in binds where text.utf8.contains(0) { throw DatabaseError.unstorable }
        for bind in binds {
            switch bind {
            case .text(let text):
                pointers.append(text.flatMap { strdup($0) }.map { UnsafePointer($0) })
                lengths.append(0)
                formats.append(0)
            case .uuids(let bytes):
                pointers.append(Values.copy(bytes))
                lengths.append(Int32(bytes.count))
                formats.append(1)
            }
        }
    }

    func free() { for pointer in pointers { Glibc.free(UnsafeMutableRawPointer(mutating: pointer)) } }

    private static func copy(_ bytes: [UInt8]) -> UnsafePointer<CChar>? {
        guard let copy = malloc(bytes.count) else { return nil }
        bytes.withUnsafeBytes { source in if let start = source.baseAddress { memcpy(copy, start, source.count) } }
        return UnsafePointer(copy.assumingMemoryBound(to: CChar.self))
    }
}

/// A `NOTIFY`, or the news that notifications may have been missed.
package struct Notification: Sendable, Hashable {
    package let channel: String
    package let payload: String

    package init(channel: String, payload: String) {
        self.channel = channel
        self.payload = payload
    }

    /// Sent on every channel after the listening session was (re)opened: look at everything once.
    package static let resync = Notification(channel: "*", payload: "")
}
