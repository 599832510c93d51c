import Kernel
import PlacementCore
package import ServiceKit
package import Settings

/// The executable `wolke-placement`.
package struct PlacementApplication {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `placement`.
    package static let settingsKeys: [SettingsKey] = [
        .integer(
            "cpu_weight", default: 1, in: -1000...1000,
            "Weight of the free share of VCPU in a host's score; negative values pack servers onto few hosts."),
        .integer("memory_weight", default: 1, in: -1000...1000, "Weight of the free share of memory."),
        .integer("disk_weight", default: 1, in: -1000...1000, "Weight of the free share of disk."),
        .duration("host_silence", default: "60s", "A host without a heartbeat for this long gets no servers."),
        .integer("decisions", default: 32, in: 1...1000, "Scheduling requests processed concurrently."),
    ]

    /// Runs until the process is stopped.
    package func run() async throws {
        let settings = process.settings
        try await process.run { surroundings in
            let placement = Placement(
                database: surroundings.database, ambient: surroundings.ambient,
                weights: SchedulingWeights(
                    cpu: Double(settings.integer("placement.cpu_weight")),
                    memory: Double(settings.integer("placement.memory_weight")),
                    disk: Double(settings.integer("placement.disk_weight"))),
                hostSilence: settings.duration("placement.host_silence"), metrics: surroundings.metrics)
            return try PlacementModule.make(placement, surroundings, decisions: settings.integer("placement.decisions"))
        }
    }
}
