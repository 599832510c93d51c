import Kernel
import PlacementCore
import ServiceKit
import Settings

/// `wolke-placement`.
package struct PlacementApplication {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `placement`.
    package static let settingsKeys: [SettingsKey] = [
        .integer("cpu_weight", default: 1, in: -1000...1000, "How much the share of free VCPU counts for a host; negative fills hosts up."),
        .integer("memory_weight", default: 1, in: -1000...1000, "How much the share of free memory counts."),
        .integer("disk_weight", default: 1, in: -1000...1000, "How much the share of free disk counts."),
        .duration("host_silence", default: "60s", "After how long without a sign of life no server is placed on a host."),
        .integer("decisions", default: 32, in: 1...1000, "Scheduling requests handled at a time."),
    ]

    /// Runs until the process is told to stop.
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
