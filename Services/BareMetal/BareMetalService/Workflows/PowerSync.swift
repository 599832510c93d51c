import BareMetalCore
import Database
import Kernel
import Logging
import ServiceKit

/// Checks the power state of all nodes, and records changes that were made outside of this API.
struct PowerSync: Sendable {
    static let interval: Duration = .seconds(60)
    /// Nodes that are asked at once.
    private static let width = 16

    let surroundings: ServiceSurroundings
    let hardware: HardwareFleet

    /// Asks every idle node once.
    func run() async throws {
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

    private func follow(_ node: Node) async {
        let (ambient, log) = (surroundings.ambient, surroundings.log)
        do {
            let power = try await hardware.driver(of: node).power(of: node)
            guard power != node.power else { return }
            _ = try await surroundings.database.write { try NodeStore.followPower($0, node, power, ambient: ambient) }
        } catch {
            log.info("a node's power could not be read", metadata: ["node": "\(node.id)", "error": "\(error)"])
        }
    }
}
