import ComputeCore
import Messaging
import ServiceCatalog
package import ServiceKit
import WebAPI
import Workflow

/// Compute as one value.
package enum ComputeModule {
    /// - Throws: 400 for a policy rule that cannot be parsed.
    package static func make(_ compute: Compute, _ surroundings: ServiceSurroundings) throws -> ServiceModule {
        let database = surroundings.database
        let ambient = surroundings.ambient
        let relay = OutboxRelay(
            database: database, bus: surroundings.bus, ambient: ambient, logger: surroundings.log, metrics: surroundings.metrics)
        let consumer = AgentConsumer(compute)
        let tasks = ComputePeriodicTasks(compute)
        let copies = VolumeCopyTask(compute)
        // This process reports a conductor, because its workflows do the work of Nova's.
        let heartbeat = ProcessHeartbeat(
            "nova-conductor", host: surroundings.machine, database: database, ambient: ambient, log: surroundings.log)
        let interfaces = InterfaceWorkflows(compute)
        let volumes = VolumeAttachmentWorkflows(compute)
        let (resize, migration, evacuation) = (ServerResize(compute), ServerMigration(compute), ServerEvacuation(compute))
        return ServiceModule(
            .compute, surroundings, api: try ComputeAPI.make(compute, surroundings),
            workflows: [
                ServerCreate(compute).workflow.definition, ServerDelete(compute).workflow.definition,
                interfaces.attach.definition, interfaces.detach.definition, volumes.attach.definition, volumes.detach.definition,
                resize.workflow.definition, resize.confirmation.definition, resize.reversal.definition,
                migration.workflow.definition, migration.reversal.definition,
                ServerLiveMigration(compute).workflow.definition, evacuation.workflow.definition, evacuation.earlier.definition,
                ServerSnapshot(compute).workflow.definition, ServerShelve(compute).workflow.definition,
                ServerOffload(compute).workflow.definition, ServerUnshelve(compute).workflow.definition,
                ImageRemoval(compute).workflow.definition, VolumeImage(compute).workflow.definition,
                VolumeCopy(compute).workflow.definition, VolumeSwap(compute).workflow.definition,
                VolumeRebuild(compute).workflow.definition, VolumeExtension(compute).workflow.definition,
            ],
            intents: [ServerCreate.deleteIntent: ServerDelete.kind],
            consumers: [.init("consumer") { try await consumer.run() }],
            loops: [
                .init("relay") { try await relay.run() }, .init("periodic tasks") { try await tasks.run() },
                .init("copies of volumes") { try await copies.run() },
                .init("heartbeat") { try await heartbeat.run() },
            ],
            inspections: ComputeInspections.all, quota: compute.quota)
    }
}
