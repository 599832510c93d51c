import BareMetalCore
import Database
import Kernel
import Logging
import ServiceKit
import Telemetry

/// Polls the power state of all nodes and records changes that were made outside of this API.
struct PowerSync: Sendable {
    /// The number of nodes that are polled concurrently.
    private static let width = 16

    let surroundings: ServiceSurroundings
    let hardware: HardwareFleet

    /// Polls the power state of each idle node once.
    func run() async throws {
        try await count()
        var last: UUID128?
        while true {
            let after = last
            let nodes = try await surroundings.database.read { try NodeStore.idleNodes($0, after: after, limit: PowerSync.width) }
            guard let end = nodes.last else { return }
            await withTaskGroup(of: Void.self) { group in
                for node in nodes { group.addTask { await follow(node) } }
            }
            last = end.id
        }
    }

    /// Publishes the number of nodes in each state.
    private func count() async throws {
        let (counts, maintained) = try await surroundings.database.read { try NodeStore.counts($0) }
        for state in ProvisionState.allCases {
            surroundings.metrics.set(
                "wolke_bare_metal_nodes", Double(counts[state.rawValue] ?? 0), [("provision_state", state.rawValue)],
                help: "Nodes, by their provision state.")
        }
        surroundings.metrics.set("wolke_bare_metal_nodes_in_maintenance", Double(maintained), help: "Nodes in maintenance.")
    }

    private func follow(_ node: Node) async {
        let (ambient, log, metrics) = (surroundings.ambient, surroundings.log, surroundings.metrics)
        do {
            let power = try await hardware.driver(of: node).power(of: node)
            guard power != node.power else { return }
            if try await surroundings.database.write({ try NodeStore.followPower($0, node, power, ambient: ambient) }) {
                metrics.increment(
                    "wolke_bare_metal_power_changes_total", [("driver", node.driver)],
                    help: "Power changes that were made outside of the API.")
            }
        } catch {
            metrics.increment(
                "wolke_bare_metal_power_failures_total", [("driver", node.driver)], help: "Failed polls of a node's power state.")
            log.info("a node's power could not be read", metadata: ["node": "\(node.id)", "error": "\(error)"])
        }
    }
}
