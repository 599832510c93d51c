import JSON
package import Kernel
package import Logging
import NIOCore
import NIOPosix
import NIOSSL

/// The columns of a table to monitor; nil for all.
package struct OVSDBMonitor: Sendable, Hashable {
    package let table: String
    package let columns: [String]?

    package init(_ table: String, columns: [String]? = nil) {
        self.table = table
        self.columns = columns
    }
}

/// Settings of the client.
package struct OVSDBConfiguration: Sendable {
    /// Server addresses, tried in turn.
    package var endpoints: [OVSDBEndpoint]
    package var database: String
    package var monitors: [OVSDBMonitor]
    /// Required for endpoints with TLS.
    package var credentials: OVSDBCredentials?
    /// A lock to request in each session; `OVSDBOperation.assertLock` makes transactions depend on it.
    package var lock: String?
    /// Whether the client keeps a copy of the monitored tables. Without one it passes on changes as the server sends them, and
    /// starts a new session if the reader is too slow.
    package var keepsCopy = true
    /// Timeout of a request.
    package var requestTimeout: Duration = .seconds(30)
    /// After this time without a message from the server the client sends an echo request; after twice the time the
    /// connection counts as lost.
    package var echoInterval: Duration = .seconds(5)
    /// Longest delay between connection attempts.
    package var reconnectDelayMax: Duration = .seconds(5)

    package init(
        endpoints: [OVSDBEndpoint], database: String, monitors: [OVSDBMonitor] = [], lock: String? = nil
    ) {
        self.endpoints = endpoints
        self.database = database
        self.monitors = monitors
        self.lock = lock
    }
}

/// The changes since the reader's last call.
package struct OVSDBChanges: Sendable {
    /// Whether the reader must discard its state: `changes` then starts from an empty database.
    package var reset: Bool
    package var changes: [OVSDBRowChange]
}

/// A client of an OVSDB server (RFC 7047, with `monitor_cond`) that reconnects automatically: call `run()` in a task and
/// the other functions from anywhere. The copy of the monitored tables stays readable while the server is unavailable.
package actor OVSDBClient {
    private enum Answer {
        case reply(CheckedContinuation<JSONValue, any Error>)
        case monitor(CheckedContinuation<JSONValue, any Error>)
    }

    private struct Pending {
        let answer: Answer
        let deadline: UInt64
    }

    package nonisolated let configuration: OVSDBConfiguration
    private let ambient: Ambient
    private let logger: Logger
    private let onChange: @Sendable () -> Void

    private var channel: (any Channel)?
    private var isReady = false
    private var pending: [Int: Pending] = [:]
    private var nextID = 1
    private var schema: OVSDBSchema?
    private var replica: OVSDBReplica?
    private var changes = OVSDBChanges(reset: false, changes: [])
    /// The number of `changes` that arrived after the start of the session.
    private var pendingNews = 0
    private var locked = false
    private var lastHeard: UInt64 = 0
    private var readyWaiters: [Int: CheckedContinuation<Void, any Error>] = [:]
    private var lastProblem: String?

    /// `onChange` is called on an arbitrary thread whenever `takeChanges` has news, or the session or the lock was gained or
    /// lost.
    package init(
        _ configuration: OVSDBConfiguration, ambient: Ambient, logger: Logger,
        onChange: @escaping @Sendable () -> Void = {}
    ) {
        self.configuration = configuration
        self.ambient = ambient
        self.logger = logger
        self.onChange = onChange
    }

    // MARK: state

    /// Whether a session is open.
    package var isConnected: Bool { isReady }
    /// Whether this session holds the configured lock.
    package var holdsLock: Bool { isReady && locked }
    /// The error of the last connection attempt; nil while connected.
    package var problem: String? { isReady ? nil : lastProblem }
    /// The schema that was read last.
    package var currentSchema: OVSDBSchema? { schema }

    /// The copy of a monitored table; empty before the first session.
    package func rows(_ table: String) -> [UUID128: OVSDBRow] { replica?.tables[table] ?? [:] }

    /// The changes since the last call, in order. Only for one reader.
    package func takeChanges() -> OVSDBChanges {
        defer {
            changes = OVSDBChanges(reset: false, changes: [])
            pendingNews = 0
        }
        if changes.reset, configuration.keepsCopy, let replica { return OVSDBChanges(reset: true, changes: replica.asInserted) }
        return changes
    }

    /// Suspends until a session is open.
    ///
    /// - Throws: `OVSDBError.timedOut`; `CancellationError`.
    package func waitUntilConnected(timeout: Duration = .seconds(10)) async throws {
        if isReady { return }
        let id = newID()
        let timer = Task { [ambient] in
            try await ambient.time.sleep(for: timeout)
            self.giveUpWaiting(id)
        }
        defer { timer.cancel() }
        try await withCheckedThrowingContinuation { readyWaiters[id] = $0 }
    }

    private func giveUpWaiting(_ id: Int) { readyWaiters.removeValue(forKey: id)?.resume(throwing: OVSDBError.timedOut) }

    // MARK: requests

    /// Runs the operations in one transaction. When the call returns, the copy of the monitored tables contains its effect.
    ///
    /// - Throws: `OVSDBError`; after `.disconnected` and `.timedOut` the outcome is unknown.
    @discardableResult
    package func transact(_ operations: [OVSDBOperation]) async throws -> [OVSDBResult] {
        try OVSDBResult.decode(
            try await send(OVSDBTransaction(operations) { $0.write(to: &$1) }), operations: operations.count)
    }

    /// Runs an encoded transaction and ignores its results.
    ///
    /// - Throws: as `transact(_:)` for operations.
    package func transact(_ transaction: OVSDBTransaction) async throws {
        try OVSDBResult.check(try await send(transaction), operations: transaction.count)
    }

    private func send(_ transaction: OVSDBTransaction) async throws -> JSONValue {
        guard transaction.count <= OVSDBLimits.operationsMax else {
            throw OVSDBError.invalid(
                "\(transaction.count) operations in a transaction; the maximum is \(OVSDBLimits.operationsMax)")
        }
        guard isReady else { throw OVSDBError.notConnected }
        return try await call(
            "transact",
            {
                $0.value(configuration.database)
                if transaction.count > 0 { $0.raw(transaction.bytes) }
            }, answer: { .reply($0) })
    }

    private func call(
        _ method: String, _ parameters: (inout JSONWriter) -> Void,
        answer: @Sendable (CheckedContinuation<JSONValue, any Error>) -> sending Answer
    ) async throws -> JSONValue {
        guard let channel else { throw OVSDBError.notConnected }
        guard pending.count < OVSDBLimits.requestsPendingMax else {
            throw OVSDBError.refused("more than \(OVSDBLimits.requestsPendingMax) requests are waiting for answers")
        }
        let id = newID()
        var message = JSONWriter()
        message.object {
            $0.field("method", method)
            $0.arrayField("params", parameters)
            $0.field("id", id)
        }
        let bytes = message.bytes
        let deadline = ambient.time.monotonicNanoseconds() + nanoseconds(configuration.requestTimeout)
        return try await withCheckedThrowingContinuation { continuation in
            pending[id] = Pending(answer: answer(continuation), deadline: deadline)
            send(bytes, on: channel)
        }
    }

    private func send(_ message: [UInt8], on channel: any Channel) {
        channel.writeAndFlush(ByteBuffer(bytes: message), promise: nil)
    }

    private static let echo: JSONValue = ["method": "echo", "params": [], "id": "echo"]

    private func newID() -> Int {
        defer { nextID += 1 }
        return nextID
    }

    private func nanoseconds(_ duration: Duration) -> UInt64 { UInt64(max(0, duration.microseconds)) * 1000 }

    // MARK: session

    /// Keeps a session open until the task is cancelled.
    package func run() async {
        var failures = 0
        while !Task.isCancelled {
            let endpoint = configuration.endpoints[failures % configuration.endpoints.count]
            var wasReady = false
            do { try await session(endpoint) } catch {
                wasReady = isReady
                lastProblem = "\(endpoint): \(error)"
                if !Task.isCancelled, wasReady || failures == 0 {
                    logger.warning(
                        "OVSDB session ended",
                        metadata: [
                            "endpoint": "\(endpoint)", "database": "\(configuration.database)", "reason": "\(error)",
                        ])
                }
            }
            ended()
            failures = wasReady ? 0 : failures + 1
            let most = configuration.reconnectDelayMax.microseconds
            let delay = min(most, Int64(100_000) << Int64(min(failures, 10)))
            let jittered = delay / 2 + Int64(ambient.random.below(Int(delay / 2) + 1))
            do { try await ambient.time.sleep(for: .microseconds(jittered)) } catch { break }
        }
        for waiter in readyWaiters.values { waiter.resume(throwing: CancellationError()) }
        readyWaiters = [:]
    }

    private func session(_ endpoint: OVSDBEndpoint) async throws {
        let (stream, continuation) = AsyncThrowingStream<ByteBuffer, any Error>.makeStream()
        let tls = endpoint.isTLS ? configuration.credentials : nil
        guard tls != nil || !endpoint.isTLS else { throw OVSDBError.invalid("no key and certificate are configured for \(endpoint)") }
        let bootstrap = ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connectTimeout(.seconds(5))
            .channelInitializer { channel in
                channel.eventLoop.makeCompletedFuture {
                    let decoder = ByteToMessageHandler(
                        JSONFrameDecoder(), maximumBufferSize: OVSDBLimits.messageBytesMax)
                    if let tls {
                        try channel.pipeline.syncOperations.addHandler(NIOSSLClientHandler(context: tls.context, serverHostname: nil))
                    }
                    try channel.pipeline.syncOperations.addHandlers(decoder, OVSDBStreamHandler(continuation))
                }
            }
        let channel =
            switch endpoint {
            case .unix(let path): try await bootstrap.connect(unixDomainSocketPath: path).get()
            case .tcp(let host, let port), .tls(let host, let port): try await bootstrap.connect(host: host, port: port).get()
            }
        self.channel = channel
        lastHeard = ambient.time.monotonicNanoseconds()
        defer { channel.close(promise: nil) }
        try await withThrowingTaskGroup(of: Void.self) { group in
            group.addTask {
                for try await frame in stream { try await self.receive(frame) }
                throw OVSDBError.disconnected("the server closed the connection")
            }
            group.addTask {
                try await self.prepare()
                try await self.keepAlive()
            }
            // Both tasks run until one fails, which ends the session.
            defer { group.cancelAll() }
            do { try await group.next() } catch {
                // Refuse new requests from now on, because their replies would not be read.
                self.channel = nil
                self.failPending(error)
                throw error
            }
        }
    }

    private func prepare() async throws {
        let schema = try OVSDBSchema(
            json: try await call("get_schema", { $0.value(configuration.database) }, answer: { .reply($0) }))
        self.schema = schema
        replica = OVSDBReplica(schema: schema, isKept: configuration.keepsCopy)
        if let lock = configuration.lock {
            let reply = try await call("lock", { $0.value(lock) }, answer: { .reply($0) })
            locked = reply["locked"]?.boolValue ?? false
        }
        var requests = JSONObject()
        for monitor in configuration.monitors {
            guard schema.hasTable(monitor.table) else {
                throw OVSDBError.invalid("\(configuration.database) has no table \(monitor.table)")
            }
            var request = JSONObject()
            if let columns = monitor.columns {
                request["columns"] = JSONValue(columns.filter { schema.has(table: monitor.table, column: $0) })
            }
            requests[monitor.table] = [.object(request)]
        }
        if !requests.isEmpty {
            _ = try await call(
                "monitor_cond",
                {
                    $0.value(configuration.database)
                    $0.value("replica")
                    $0.value(.object(requests))
                },
                answer: { .monitor($0) })
        }
        isReady = true
        lastProblem = nil
        if configuration.keepsCopy { changes = OVSDBChanges(reset: true, changes: []) }
        let waiters = readyWaiters
        readyWaiters = [:]
        for waiter in waiters.values { waiter.resume() }
        onChange()
        logger.info(
            "OVSDB session ready",
            metadata: [
                "database": "\(configuration.database)", "schema": "\(schema.version)",
            ])
    }

    private func ended() {
        isReady = false
        locked = false
        channel = nil
        failPending(OVSDBError.disconnected("the session ended"))
        onChange()
    }

    private func failPending(_ error: any Error) {
        let failed = pending
        pending = [:]
        for (_, request) in failed {
            let reason = OVSDBError.disconnected("\(error)")
            switch request.answer {
            case .reply(let continuation), .monitor(let continuation): continuation.resume(throwing: reason)
            }
        }
    }

    private func keepAlive() async throws {
        let interval = nanoseconds(configuration.echoInterval)
        var asked = false
        while true {
            try await ambient.time.sleep(for: .milliseconds(500))
            let now = ambient.time.monotonicNanoseconds()
            for (id, request) in pending where request.deadline < now {
                pending[id] = nil
                switch request.answer {
                case .reply(let continuation), .monitor(let continuation):
                    continuation.resume(throwing: OVSDBError.timedOut)
                }
            }
            let silence = now - min(now, lastHeard)
            if silence < interval { asked = false }
            if silence > interval * 2 { throw OVSDBError.disconnected("no answer to an echo") }
            if silence > interval, !asked, let channel {
                asked = true
                send(OVSDBClient.echo.encoded, on: channel)
            }
        }
    }

    // MARK: messages

    private func receive(_ frame: ByteBuffer) throws {
        lastHeard = ambient.time.monotonicNanoseconds()
        let message = try JSONValue.parse(frame.readableBytesView, depthMax: OVSDBLimits.depthMax)
        if let method = message["method"]?.stringValue {
            try receive(method: method, message)
            return
        }
        guard let id = message["id"]?.intValue, let request = pending.removeValue(forKey: id) else { return }
        if let error = message["error"], !error.isNull {
            let text = error.stringValue ?? error["error"]?.stringValue ?? error.description
            switch request.answer {
            case .reply(let continuation), .monitor(let continuation):
                continuation.resume(throwing: OVSDBError.refused(text))
            }
            return
        }
        let result = message["result"] ?? .null
        switch request.answer {
        case .reply(let continuation): continuation.resume(returning: result)
        case .monitor(let continuation):
            // Processed here instead of in the waiting caller, because the next message may already be an update.
            do {
                let initial = try replica?.apply(result) ?? []
                if !configuration.keepsCopy {
                    changes = OVSDBChanges(reset: true, changes: initial)
                    pendingNews = 0
                }
                continuation.resume(returning: .null)
            } catch { continuation.resume(throwing: error) }
        }
    }

    private func receive(method: String, _ message: JSONValue) throws {
        switch method {
        case "echo":
            guard let channel else { return }
            let answer: JSONValue = ["result": message["params"] ?? [], "error": .null, "id": message["id"] ?? .null]
            send(answer.encoded, on: channel)
        case "update2":
            guard let parameters = message["params"]?.arrayValue, parameters.count == 2 else {
                throw OVSDBError.protocolViolation("update2 without its two parameters")
            }
            guard var copy = replica.take() else { return }
            let news: [OVSDBRowChange]
            do { news = try copy.apply(parameters[1]) } catch {
                replica = copy
                throw error
            }
            replica = copy
            try record(news)
        case "locked":
            locked = true
            onChange()
        case "stolen":
            locked = false
            onChange()
        default: break
        }
    }

    private func record(_ news: [OVSDBRowChange]) throws {
        if !changes.reset || !configuration.keepsCopy {
            changes.changes += news
            pendingNews += news.count
            if pendingNews > OVSDBLimits.changesPendingMax {
                guard configuration.keepsCopy else { throw OVSDBError.disconnected("\(pendingNews) changes were not read in time") }
                changes = OVSDBChanges(reset: true, changes: [])
            }
        }
        onChange()
    }
}
