import CLibpq
import Glibc
package import Kernel

/// One session with PostgreSQL. Used on its own thread only; bodies given to `Database` receive it.
package final class Connection {
    private var handle: OpaquePointer?
    private let configuration: DatabaseConfiguration
    private var prepared: [String: String] = [:]
    private var announcements: [Announcement] = []
    /// The session's current settings; nil for PostgreSQL's defaults.
    private var sessionLimit: DatabaseConfiguration.TimeLimit?
    /// Whether the session's statements outside of transactions may only read.
    private var isReadOnly = false
    /// Monotonic time after which the job may not begin another statement; nil for no deadline.
    private var deadline: UInt64?
    /// Stops this session's statements from other threads.
    let cancellation = Cancellation()

    /// Called before each statement; an error that it throws fails the statement. For simulation.
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
        try requireTime()
        let text = sql.text
        // libpq would read a text up to its first NUL; PostgreSQL has no such character anyway.
        for case .text(let bound?) in sql.binds where bound.utf8.contains(0) { throw DatabaseError.nul(in: bound, text) }
        let name = try prepare(text)
        let values = Values(sql.binds)
        defer { values.free() }
        let result = PQexecPrepared(
            try open(), name, Int32(values.pointers.count), values.pointers, values.lengths, values.formats, 0)
        return try check(result, statement: text, binds: sql.binds)
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
        guard let fresh = connect() else {
            throw DatabaseError(sqlState: "08001", message: "out of memory", constraint: nil, table: nil, statement: nil)
        }
        guard PQstatus(fresh) == CONNECTION_OK else {
            let message = String(cString: PQerrorMessage(fresh))
            PQfinish(fresh)
            throw DatabaseError(sqlState: "08006", message: message, constraint: nil, table: nil, statement: nil)
        }
        handle = fresh
        cancellation.attach(fresh)
        PQsetNoticeProcessor(fresh, { _, _ in }, nil)
        // client_connection_check_interval ends statements of processes that are gone. JIT compilation is off because the cost of recursive
        // queries is overestimated: compiling a query of a few milliseconds would take more than a second.
        try script(
            """
            SET TIME ZONE 'UTC'; SET idle_in_transaction_session_timeout = \(configuration.idleInTransaction.microseconds / 1000);
            SET client_connection_check_interval = 1000; SET jit = off
            """)
        return fresh
    }

    /// The options of the connection string take precedence, for example its connect timeout.
    private func connect() -> OpaquePointer? {
        let texts = ["connect_timeout", "10", "application_name", configuration.applicationName, "dbname", configuration.connectionString]
            .map { (text: String) in UnsafePointer<CChar>(strdup(text)) }
        defer { for text in texts { Glibc.free(UnsafeMutablePointer(mutating: text)) } }
        let (keywords, values) = ([texts[0], texts[2], texts[4], nil], [texts[1], texts[3], texts[5], nil])
        return PQconnectdbParams(keywords, values, 1)
    }

    func close() {
        cancellation.attach(nil)
        if let handle { PQfinish(handle) }
        handle = nil
        prepared = [:]
        sessionLimit = nil
        isReadOnly = false
    }

    // MARK: limits of time

    /// Sets the time limit of the statements until the next job, and whether statements outside of `transaction` are
    /// read-only.
    func settle(_ limit: DatabaseConfiguration.TimeLimit, readOnly: Bool) throws {
        begin(limit)
        _ = try open()
        var settings: [String] = []
        if sessionLimit != limit { settings.append(Connection.settings(limit, local: false)) }
        if isReadOnly != readOnly { settings.append("SET default_transaction_read_only = \(readOnly ? "on" : "off")") }
        guard !settings.isEmpty else { return }
        try script(settings.joined(separator: "; "))
        (sessionLimit, isReadOnly) = (limit, readOnly)
    }

    /// Allows statements outside of transactions to write, for code that uses the session directly.
    package func allowWrites() throws {
        guard isReadOnly else { return }
        try script("SET default_transaction_read_only = off")
        isReadOnly = false
    }

    private func begin(_ limit: DatabaseConfiguration.TimeLimit) {
        deadline =
            !limit.together ? nil : limit.statement.map { SystemTime().monotonicNanoseconds() + UInt64(max(0, $0.microseconds)) * 1000 }
    }

    private static func settings(_ limit: DatabaseConfiguration.TimeLimit, local: Bool) -> String {
        let word = local ? "SET LOCAL" : "SET"
        return [("statement_timeout", limit.statement), ("lock_timeout", limit.lock)]
            .map { "\(word) \($0) = \($1.map { max(1, $0.microseconds / 1000) } ?? 0)" }.joined(separator: "; ")
    }

    /// - Throws: if the job was cancelled or its deadline has passed.
    private func requireTime() throws {
        if cancellation.refuses { throw DatabaseError.stopped("the client has left") }
        if let deadline, SystemTime().monotonicNanoseconds() > deadline {
            throw DatabaseError.stopped("the statements took longer together than the limit allows")
        }
    }

    /// Runs a dummy statement after a cancel request was sent, so that a late cancel hits this statement and not the next
    /// job's.
    func absorbCancel() {
        guard let handle, PQstatus(handle) == CONNECTION_OK else { return }
        PQclear(PQexec(handle, "SELECT 1"))
        endTransaction()
    }

    /// Rolls back an open transaction, so that the session's next job starts without one.
    private func endTransaction() {
        guard let handle, !isBroken else { return close() }
        guard PQtransactionStatus(handle) != PQTRANS_IDLE else { return }
        do { try script("ROLLBACK") } catch { close() }
    }

    var isBroken: Bool { handle.map { PQstatus($0) != CONNECTION_OK } ?? true }

    private func check(_ result: OpaquePointer?, statement: String, binds: [SQLBind] = []) throws -> Rows {
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
        var error = DatabaseError(
            sqlState: field("C") ?? "08006", message: field("M") ?? String(cString: PQresultErrorMessage(result)),
            constraint: field("n"), table: field("t"), statement: statement)
        if error.isRefusedInput { error.inputs = Connection.texts(binds, context: field("W")) }
        throw error
    }

    /// The texts among `binds`: the one that PostgreSQL names in the error's context (`unnamed portal parameter $2`), or all.
    private static func texts(_ binds: [SQLBind], context: String?) -> [String] {
        let number = context.flatMap { $0.firstMatch(of: /portal parameter \$([0-9]+)/) }.flatMap { Int($0.1) }
        let named = number.flatMap { (1...max(1, binds.count)).contains($0) && !binds.isEmpty ? [binds[$0 - 1]] : nil } ?? binds
        return named.compactMap { if case .text(let text) = $0 { text } else { nil } }
    }

    // MARK: transactions

    /// - Parameter limit: holds for this transaction; nil for the session's.
    func transaction<Value>(
        begin: String = "BEGIN READ WRITE", _ limit: DatabaseConfiguration.TimeLimit? = nil, _ body: (Connection) throws -> Value
    ) throws -> Value {
        announcements = []
        let value: Value
        do {
            if let limit, limit != sessionLimit {
                // Sent in one message to save a round trip.
                try script(begin + "; " + Connection.settings(limit, local: true))
            } else {
                try script(begin)
            }
            if let limit { self.begin(limit) }
            value = try body(self)
        } catch {
            endTransaction()
            throw error
        }
        do { try script("COMMIT") } catch var error as DatabaseError {
            error.commitUnknown = isBroken
            // A COMMIT that was cancelled leaves the transaction open.
            endTransaction()
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
    package func notify<Payload>(_ channel: NotificationChannel<Payload>, _ payload: Payload) throws {
        try notify(Notification(channel: channel.name, payload: payload.payload))
    }

    /// As above, on a channel without a payload.
    package func notify(_ channel: NotificationChannel<NoPayload>) throws { try notify(channel, NoPayload()) }

    func notify(_ notification: Notification) throws {
        try query("SELECT pg_notify(\(notification.channel), \(notification.payload))")
    }

    // MARK: notifications

    /// Sends a hint after the transaction commits: to this process at once, to others a little later. Unlike `notify` it
    /// does not delay other commits, but it is lost if the process dies right after the commit.
    ///
    /// - Parameter everywhere: false to notify this process only.
    package func announce<Payload>(_ channel: NotificationChannel<Payload>, _ payload: Payload, everywhere: Bool = true) {
        announcements.append(
            Announcement(notification: Notification(channel: channel.name, payload: payload.payload), everywhere: everywhere))
    }

    /// As above, on a channel without a payload.
    package func announce(_ channel: NotificationChannel<NoPayload>, everywhere: Bool = true) {
        announce(channel, NoPayload(), everywhere: everywhere)
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
    /// Lengths of binary values; libpq determines the length of texts itself.
    private(set) var lengths: [Int32] = []
    private(set) var formats: [Int32] = []

    init(_ binds: [SQLBind]) {
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

/// A `NOTIFY`, or the event that notifications may have been missed.
package struct Notification: Sendable, Hashable {
    package let channel: String
    package let payload: String

    package init(channel: String, payload: String) {
        self.channel = channel
        self.payload = payload
    }

    /// Sent on every channel after the listening session was opened or reopened: notifications may have been missed, so
    /// read everything again.
    package static let resync = Notification(channel: "*", payload: "")
    /// Sent when a listening session that held a lock is gone, and the lock with it. `resync` says that it is back.
    package static let lost = Notification(channel: "-", payload: "")

    /// The payload if the notification is on `channel`; nil for other channels and malformed payloads.
    package func payload<Payload>(on channel: NotificationChannel<Payload>) -> Payload? {
        self.channel == channel.name ? Payload(payload: payload) : nil
    }
}
