package import Database
import Glibc
import Inspections
package import Kernel
package import Logging
import Settings

/// Records heartbeats of a control plane process in `plane_services`, for Compute's `os-services`.
package struct ProcessHeartbeat: Sendable {
    /// Much shorter than the time after which Compute considers a service down.
    private static let interval: Duration = .seconds(10)

    private let kind: String
    private let host: String
    private let database: Database
    private let ambient: Ambient
    private let log: Logger

    /// - Parameters:
    ///   - kind: the name under which Nova clients know such a process: `nova-scheduler`, `nova-conductor`.
    ///   - host: the machine's name. Processes of one kind on one machine are shown as one service.
    package init(
        _ kind: String, host: String = ProcessHeartbeat.machineName(), database: Database, ambient: Ambient, log: Logger
    ) {
        self.kind = kind
        self.host = host
        self.database = database
        self.ambient = ambient
        self.log = log
    }

    /// Records heartbeats until the task is cancelled.
    package func run() async throws {
        try await PeriodicTask.repeating(
            every: ProcessHeartbeat.interval, ambient, log, failure: "the heartbeat of \(kind) could not be written"
        ) {
            try await record()
        }
    }

    /// Records one heartbeat with the database's clock.
    package func record() async throws {
        let (kind, host, id, now) = (kind, host, ambient.newUUID(), ambient.databaseNow)
        _ = try await database.write { connection in
            // The update is tried first, because an INSERT takes a sequence number even if the row exists.
            let known = try connection.execute(
                """
                UPDATE plane_services SET last_seen_at = \(now), version = \(WolkeVersion.current)
                WHERE kind = \(kind) AND host = \(host)
                """)
            if known > 0 { return }
            try connection.execute(
                """
                INSERT INTO plane_services (id, kind, host, version, last_seen_at)
                VALUES (\(id), \(kind), \(host), \(WolkeVersion.current), \(now))
                ON CONFLICT (kind, host) DO UPDATE SET last_seen_at = EXCLUDED.last_seen_at, version = EXCLUDED.version
                """)
        }
    }

    /// The machine's host name, as returned by the kernel.
    package static func machineName() -> String {
        var buffer = [CChar](repeating: 0, count: 256)
        gethostname(&buffer, buffer.count - 1)
        return String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
}
