import Authorization
import BlockStorageCore
import Client
import Commands
import Contracts
import Database
import DiskTool
import ImageAccess
import Kernel
import Logging
import ServiceKit
import Settings
import Telemetry
import WebAPI
import Workflow

/// The Block Storage API, put together.
package enum BlockStorageAPI {
    /// - Throws: for a policy rule that cannot be read.
    package static func make(
        database: Database, driver: any VolumeDriver, workflows: VolumeWorkflows, settings: BlockStorageSettings,
        publicURL: String, policyOverrides: [String: String] = [:], authenticator: any Authenticating, ambient: Ambient,
        log: Logger, metrics: Metrics
    ) throws -> API {
        let handlers = BlockStorageHandlers(
            database: database, driver: driver, workflows: workflows, settings: settings)
        return try API(
            service: ServiceDescription(
                .blockStorage, publicURL: publicURL,
                subjectActions: [
                    "volume:create", "volume:delete", "volume:attachment_create", "volume:attachment_complete",
                    "volume:attachment_delete",
                ]),
            resources: handlers.resources, rules: BlockStorageHandlers.rules, policyOverrides: policyOverrides,
            database: database, authenticator: authenticator, ambient: ambient, log: log, metrics: metrics)
    }
}

/// `wolke-block-storage`.
package struct BlockStorageApplication: Sendable {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `block_storage`.
    package static let settingsKeys = BlockStorageSettings.keys

    /// What the service reads of other sections.
    package static let borrowedSettings = ImageAccess.settings

    /// Runs until the process is told to stop.
    package func run() async throws {
        let process = process
        let settings = BlockStorageSettings(process.settings)
        let sandbox = Sandbox(user: settings.sandboxUser)
        let sandboxWatch = SandboxWatch(sandbox, time: process.ambient.time)
        let driver = try FileDriver(
            directory: process.settings.string("block_storage.directory"), images: RemoteImages(client: try client()),
            sandbox: sandbox, ended: { subject in await wake(subject) })
        let workflows = VolumeWorkflows(
            database: process.database, driver: driver, images: try ImageAccess(process.settings), settings: settings,
            ambient: process.ambient)
        let engine = WorkflowEngine(
            service: VolumeWorkflows.service, definitions: workflows.definitions, intents: workflows.intents,
            database: process.database, ambient: process.ambient, log: process.log, metrics: process.metrics)
        let authenticator = try process.makeAuthenticator()
        let api = try BlockStorageAPI.make(
            database: process.database, driver: driver, workflows: workflows, settings: settings,
            publicURL: process.publicURL, policyOverrides: process.policyOverrides(), authenticator: authenticator,
            ambient: process.ambient, log: process.log, metrics: process.metrics)
        let reportTask = ServiceReportTask(
            database: process.database, driver: driver, settings: settings, ambient: process.ambient, log: process.log,
            sandbox: sandboxWatch)
        try await process.run(
            api,
            services: [
                authenticator, engine, BackgroundLoop { try await reportTask.run() }, BackgroundLoop { try await sandboxWatch.run() },
            ])
    }

    private func client() throws -> RESTClient {
        let settings = process.settings
        return RESTClient(
            .serviceUser(
                endpoints: settings.endpoints,
                user: settings.string("service_user.name"),
                password: settings.requiredSecret("service_user.password"),
                domain: settings.string("service_user.domain"), project: settings.string("service_user.project")),
            ambient: process.ambient, requestID: { RequestScope.current })
    }

    /// The workflow that waits for a copy goes on at once.
    private func wake(_ subject: String) async {
        do { try await process.database.autocommit { try $0.notify(.wake, Wake(subject: subject)) } } catch {
            process.log.info("a workflow is not woken; it looks by itself", metadata: ["subject": "\(subject)", "error": "\(error)"])
        }
    }
}

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
        machine: String = SignOfLife.machineName(), sandbox: SandboxWatch? = nil
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
        while true {
            do { try await runOnce() } catch let error where !(error is CancellationError) {
                log.warning("the service's state report was not written", metadata: ["error": "\(error)"])
            }
            try await ambient.time.sleep(for: ServiceReportTask.interval)
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
