import BlockStorageCore
package import Database
package import DiskTool
import Inspections
package import Kernel
package import Logging
import ServiceKit

/// Reports every few seconds that this service is alive, and its capacity.
package struct ServiceReportTask: Sendable {
    static let kind = "cinder-volume"
    /// The part of the process that chooses the backend, which is a service of its own for clients of Cinder.
    static let schedulerKind = "cinder-scheduler"
    /// A scheduler that has not reported for this long is no longer listed: its machine was renamed or removed.
    static let schedulerLifetime: Duration = .seconds(86_400)
    private static let interval: Duration = .seconds(10)
    let database: Database
    let driver: any VolumeDriver
    let settings: BlockStorageSettings
    let ambient: Ambient
    let log: Logger
    /// The machine's name.
    let machine: String
    /// Nil if the sandbox is not watched.
    let sandbox: SandboxWatch?

    package init(
        database: Database, driver: any VolumeDriver, settings: BlockStorageSettings, ambient: Ambient, log: Logger,
        machine: String = ProcessHeartbeat.machineName(), sandbox: SandboxWatch? = nil
    ) {
        self.sandbox = sandbox
        self.machine = machine
        self.database = database
        self.driver = driver
        self.settings = settings
        self.ambient = ambient
        self.log = log
    }

    /// Reports until the task is cancelled.
    package func run() async throws {
        try await PeriodicTask.repeating(
            every: ServiceReportTask.interval, ambient, log, failure: "the service's state report was not written"
        ) {
            try await runOnce()
        }
    }

    /// Writes one state report with the driver's capacity. All processes together are one `cinder-volume`, because they share
    /// the storage; each machine has its own `cinder-scheduler`.
    package func runOnce() async throws {
        let capacity = try await driver.capacity()
        let problem = await sandbox?.problem()
        let now = ambient.databaseNow
        let settings = settings
        _ = try await database.write { connection in
            try connection.execute(
                """
                INSERT INTO block_storage_services (host, kind, availability_zone, total_gb, free_gb, seen_at)
                VALUES (\(settings.serviceHost), \(ServiceReportTask.kind), \(settings.availabilityZone), \(capacity.total),
                    \(capacity.free), \(now))
                ON CONFLICT (host, kind) DO UPDATE SET total_gb = EXCLUDED.total_gb, free_gb = EXCLUDED.free_gb,
                    availability_zone = EXCLUDED.availability_zone, seen_at = EXCLUDED.seen_at
                """)
            try connection.execute(
                """
                INSERT INTO block_storage_services (host, kind, availability_zone, seen_at, sandbox_problem)
                VALUES (\(machine), \(ServiceReportTask.schedulerKind), \(settings.availabilityZone), \(now), \(problem))
                ON CONFLICT (host, kind) DO UPDATE SET availability_zone = EXCLUDED.availability_zone, seen_at = EXCLUDED.seen_at,
                    sandbox_problem = EXCLUDED.sandbox_problem
                """)
            try connection.execute(
                """
                DELETE FROM block_storage_services
                WHERE kind = \(ServiceReportTask.schedulerKind) AND seen_at < \(now) - \(ServiceReportTask.schedulerLifetime)::interval
                """)
        }
    }
}
