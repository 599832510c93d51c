import Client
import ImageAccess
import Kernel
import Messaging
import ServiceKit
import Settings
import Telemetry
import WebAPI
import Workflow

/// The service as a process: API, workflows, the agents' messages, outbox and audit.
package struct ComputeApplication {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `compute`.
    package static let settingsKeys: [SettingsKey] =
        [
            .string("default_zone", default: "nova", "Availability zone of hosts that are in no aggregate with a zone."),
            .duration("host_down_after", default: "60s", "A host whose agent has been silent for so long counts as down."),
            .duration("spawn_deadline", default: "15m", "How long a host may take to start a new server before the build fails."),
            .duration(
                "keep_deleted", default: "90d", "How long servers that have ended are kept for lists with `deleted` and for their actions."),
        ] + ComputeQuota.keys

    /// What the service reads of other sections.
    package static let borrowedSettings = ImageAccess.settings

    /// Runs until the process is told to end.
    package func run() async throws {
        let settings = process.settings
        let bus = RabbitBus(
            BusConfiguration(
                addresses: [try BrokerAddress(url: settings.requiredSecret("messaging.url").exposed)], name: process.name),
            ambient: process.ambient, logger: process.log, metrics: process.metrics)
        let client = RESTClient(
            .serviceUser(
                endpoints: settings.endpoints,
                user: settings.string("service_user.name"), password: settings.requiredSecret("service_user.password"),
                domain: settings.string("service_user.domain"), project: settings.string("service_user.project")),
            ambient: process.ambient, requestID: { RequestScope.current })
        let compute = Compute(
            database: process.database, ambient: process.ambient, bus: bus,
            clients: ServiceClients(client: client, bus: bus), images: try ImageAccess(settings), log: process.log,
            settings: ComputeSettings(
                hostDownAfter: settings.duration("compute.host_down_after"),
                spawnDeadline: settings.duration("compute.spawn_deadline"),
                defaultZone: settings.string("compute.default_zone"),
                keepDeleted: settings.duration("compute.keep_deleted"), quota: ComputeQuota.make(settings)))
        let authenticator = try process.makeAuthenticator()
        let api = try ComputeAPI.make(
            compute, publicURL: process.publicURL, policyOverrides: try process.policyOverrides(),
            authenticator: authenticator, metrics: process.metrics)
        let engine = ComputeWorkflows.engine(compute, metrics: process.metrics)
        let relay = OutboxRelay(
            database: process.database, bus: bus, ambient: process.ambient, logger: process.log, metrics: process.metrics)
        let consumer = AgentConsumer(compute)
        let periodicTasks = ComputePeriodicTasks(compute)
        // What Nova's conductor does, the workflows of this process do.
        let life = SignOfLife("nova-conductor", database: process.database, ambient: process.ambient, log: process.log)
        try await process.run(
            api,
            services: [
                authenticator, engine, BackgroundLoop { try await relay.run() },
                BackgroundLoop { try await consumer.run() }, BackgroundLoop { try await periodicTasks.run() },
                BackgroundLoop { try await life.run() },
            ])
        bus.close()
    }
}

/// The service's workflows.
package enum ComputeWorkflows {
    /// Every kind of workflow that the service has.
    package static func definitions(_ compute: Compute) -> [WorkflowDefinition] {
        [
            ServerCreate(compute).workflow.definition, ServerDelete(compute).workflow.definition,
            InterfaceWorkflows(compute).attach.definition, InterfaceWorkflows(compute).detach.definition,
            VolumeAttachmentWorkflows(compute).attach.definition, VolumeAttachmentWorkflows(compute).detach.definition,
        ]
    }

    /// - Parameter replacing: definitions that stand in for those of the same kind.
    package static func engine(
        _ compute: Compute, replacing: [WorkflowDefinition] = [], metrics: Metrics? = nil
    ) -> WorkflowEngine {
        let definitions = definitions(compute).map { own in replacing.first { $0.kind == own.kind } ?? own }
        let delete = definitions.first { $0.kind == ServerDelete.kind }
        return WorkflowEngine(
            service: Compute.service, definitions: definitions,
            intents: delete.map { [ServerCreate.deleteIntent: $0] } ?? [:], database: compute.database,
            ambient: compute.ambient, log: compute.log, metrics: metrics)
    }
}
