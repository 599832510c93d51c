import JSON
import Kernel
import Synchronization

/// Hosts between which guests move while they run.
extension FakeCloud {
    /// Does what a host does with a guest that moves: it leaves for the host that expects it.
    func moveReport(_ server: String, _ id: JSONValue, _ order: JSONValue, failure: String?, isHeld: Bool) async -> JSONValue {
        let target = order["endpoint"]?["address"]?.stringValue ?? ""
        let hasLeft = state.withLock { state in
            if state.left.contains(server) { return true }
            guard failure == nil, !isHeld, order["cancelled"] != true, state.domains[target]?[server]?.power == "expected" else {
                return false
            }
            let isPaused = state.domains.contains { $0.key != target && $0.value[server]?.power == "paused" }
            state.domains[target]?[server]?.power = isPaused ? "paused" : "running"
            state.left.insert(server)
            return true
        }
        if hasLeft { return ["id": id, "state": "done", "progress": 100] }
        if failure != nil || order["cancelled"] == true {
            let reason = failure ?? "the migration was aborted"
            return [
                "id": id, "state": "failed", "phase": JSONValue(state.withLock { $0.failedPhase }), "progress": 0,
                "error": .string(reason), "reason": .string(reason),
            ]
        }
        return [
            "id": id, "state": "running", "progress": 40,
            "migration": [
                "memory": ["total": 1000, "processed": 400, "remaining": 600], "disk": ["total": 0, "processed": 0, "remaining": 0],
            ],
        ]
    }

    /// Sources say of guests that did not leave that they certainly run there.
    func knowsWhoStays() { state.withLock { $0.failedPhase = "stayed" } }

    static func endpoint(_ host: String) -> JSONValue {
        ["uri": .string("qemu+tls://\(host)/system"), "address": .string(host), "directory": .string("/\(host)")]
    }
}
