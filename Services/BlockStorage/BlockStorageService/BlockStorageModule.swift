import BlockStorageCore
package import DiskTool
package import ImageAccess
import Inspections
import Kernel
import ServiceCatalog
package import ServiceKit
import WebAPI

/// Block Storage as one value.
package enum BlockStorageModule {
    /// - Parameters:
    ///   - driver: stores the volumes' data.
    ///   - images: decides who may create volumes from which images.
    ///   - uploads: the Image service, to upload volumes to.
    ///   - sandbox: checks whether the sandbox for images works; nil for no checks.
    /// - Throws: 400 for a policy rule that cannot be parsed.
    package static func make(
        driver: any VolumeDriver, images: ImageAccess, uploads: any VolumeImages,
        settings: BlockStorageSettings = BlockStorageSettings(),
        sandbox: SandboxWatch? = nil, _ surroundings: ServiceSurroundings
    ) throws -> ServiceModule {
        let (database, ambient) = (surroundings.database, surroundings.ambient)
        let workflows = VolumeWorkflows(
            database: database, driver: driver, images: images, uploads: uploads, settings: settings, ambient: ambient)
        let handlers = BlockStorageHandlers(database: database, driver: driver, workflows: workflows, settings: settings)
        let report = ServiceReportTask(
            database: database, driver: driver, settings: settings, ambient: ambient, log: surroundings.log,
            machine: surroundings.machine, sandbox: sandbox)
        let quotas = PeriodicTask(
            VolumeWorkflows.service, every: .seconds(20), database: database, ambient: ambient, log: surroundings.log
        ) {
            _ = try await Repairs.recount(
                BlockStorageQuotas.all, service: VolumeWorkflows.service, database, at: ambient.now, surroundings.log)
            return true
        }
        let leftovers = LeftoverTask(database: database, driver: driver)
        let api = try surroundings.api(
            .blockStorage,
            subjectActions: [
                "volume:create", "volume:delete", "volume:attachment_create", "volume:attachment_update", "volume:attachment_complete",
                "volume:attachment_delete", "volume:create_snapshot", "volume:delete_snapshot", "volume:reimage",
                "volume_extension:snapshot_actions:update_snapshot_status",
            ], resources: handlers.resources, rules: BlockStorageHandlers.rules)
        return ServiceModule(
            .blockStorage, surroundings, api: api, workflows: workflows.definitions, intents: workflows.intents,
            loops: [
                .init("state report") { try await report.run() }, .init("periodic tasks") { try await quotas.run() },

                .init("leftovers") {
                    try await PeriodicTask.repeating(
                        every: .seconds(60), ambient, surroundings.log, failure: "unfinished disks are not removed"
                    ) { try await leftovers.runOnce() }
                },
            ]
                + (sandbox.map { watch in [.init("sandbox") { try await watch.run() }] } ?? []),
            inspections: BlockStorageInspections.all, quota: workflows.quota.quota)
    }
}
