import ComputeCore
import Contracts
import ImageAccess
import Kernel
import ServiceCatalog
package import ServiceKit
package import Settings

/// `wolke-compute`.
package struct ComputeApplication {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `compute`.
    package static let settingsKeys: [SettingsKey] =
        [
            .string("default_zone", default: "nova", "Availability zone of hosts that are in no aggregate with a zone."),
            .duration("host_down_after", default: "60s", "A host whose agent sent no heartbeat for this long counts as down."),
            .duration("spawn_deadline", default: "15m", "How long a host may take to start a new server before the build fails."),
            .boolean("allow_resize_to_same_host", default: true, "Whether a resize may leave a server on its host."),
            .duration(
                "resize_confirm_window", default: "0s",
                "A resize that waits for confirmation this long is confirmed automatically. 0: never."),
            .duration(
                "keep_deleted", default: "90d", "How long deleted servers are kept for lists with `deleted` and for their actions."),
            .duration(
                "reclaim_instance_interval", default: "0s",
                "How long a deleted server can be restored; 0s deletes servers at once. Until then it is off and keeps its disks."),
            .list(
                "reclaim_instance_intervals", default: [],
                "Projects with an interval of their own, each as PROJECT_ID=DURATION."),
            .duration(
                "live_migration_completion_timeout", default: "800s",
                "How long a live migration may transfer a guest, for each GiB of its memory and local disks, at least 2. 0s: no limit."),
            .duration("console_token_lifetime", default: "10m", "How long the URL of a console can be opened; once, in this time."),
            .integer(
                "shelved_offload_time", default: 0, in: -1...31_536_000,
                "Seconds after which a shelved server is removed from its host; 0: at once, -1: never."),
        ] + QuotaDeclaration.settingsKeys(ComputeQuotas.all)

    /// The settings of other sections that the service reads.
    package static let borrowedSettings = ImageAccess.settings

    /// Runs until the process is stopped.
    package func run() async throws {
        let settings = process.settings
        let client = process.makeClient()
        try await process.run { surroundings in
            var own = ComputeSettings(
                hostDownAfter: settings.duration("compute.host_down_after"),
                spawnDeadline: settings.duration("compute.spawn_deadline"),
                defaultZone: settings.string("compute.default_zone"),
                resizesOnSameHost: settings.boolean("compute.allow_resize_to_same_host"),
                resizeConfirmWindow: settings.duration("compute.resize_confirm_window") > .zero
                    ? settings.duration("compute.resize_confirm_window") : nil,
                keepDeleted: settings.duration("compute.keep_deleted"),
                shelvedOffloadTime: settings.integer("compute.shelved_offload_time"), quota: ComputeQuota.make(settings),
                reclaim: try ReclaimIntervals(
                    settings.duration("compute.reclaim_instance_interval"),
                    projects: settings.list("compute.reclaim_instance_intervals")))
            own.liveMigrationTimeout = settings.duration("compute.live_migration_completion_timeout")
            own.consoleURL = settings.endpoint(.console)
            own.consolePort = settings.integer("endpoints.console_port")
            own.consoleTokenLifetime = settings.duration("compute.console_token_lifetime")
            let compute = Compute(
                surroundings, clients: ServiceClients(client: client, bus: surroundings.bus), images: try ImageAccess(settings),
                settings: own)
            return try ComputeModule.make(compute, surroundings)
        }
    }
}
