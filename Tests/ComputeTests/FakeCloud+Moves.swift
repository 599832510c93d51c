import ComputeService
import Contracts
import Database
import JSON
import Kernel
import Synchronization

/// Hosts between which running guests move.
extension FakeCloud {
    /// Simulates a host's part in a live migration: moves the guest to the host that expects it.
    func moveReport(_ server: String, _ id: JSONValue, _ order: JSONValue, failure: String?, isHeld: Bool) async -> JSONValue {
        let target = order["endpoint"]?["address"]?.stringValue ?? ""
        let hasLeft = state.withLock { state in
            if state.left.contains(server) { return true }
            guard failure == nil, !isHeld, !state.queuesMoves, order["cancelled"] != true,
                state.domains[target]?[server]?.power == "expected"
            else {
                return false
            }
            let isPaused = state.domains.contains { $0.key != target && $0.value[server]?.power == "paused" }
            state.domains[target]?[server]?.power = isPaused ? "paused" : "running"
            state.left.insert(server)
            return true
        }
        if hasLeft { return ["id": id, "state": "done", "progress": 100] }
        if state.withLock({ $0.queuesMoves }), order["cancelled"] != true {
            return ["id": id, "state": "running", "phase": "queued", "progress": 0]
        }
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
                "memory": ["total": 1000, "processed": JSONValue(400 + state.withLock { $0.sentBytes }), "remaining": 600],
                "disk": ["total": 0, "processed": 0, "remaining": 0],
            ],
        ]
    }

    /// The answer to a question that claims nothing, with the reasons that the hosts have; nil for other questions.
    func preview(_ question: ScheduleServer) -> SchedulingAnswer? {
        guard question.dryRun, state.withLock({ $0.rejection == nil }) else { return nil }
        let refusals = ["host-1", "host-2"].compactMap { host -> SchedulingAnswer.Refusal? in
            if question.excludedHosts.contains(host) {
                return .init(host: host, filter: "ExcludedHostFilter", reason: "is excluded by the request")
            }
            if let wanted = question.host, wanted != host {
                return .init(host: host, filter: "RequestedHostFilter", reason: "not the requested host")
            }
            let isFull = state.withLock { $0.fullHosts.contains(host) }
            return isFull ? .init(host: host, filter: "ResourceFilter", reason: "needs 512 MEMORY_MB, 100 of 16384 free") : nil
        }
        guard refusals.count == 2 else { return SchedulingAnswer(.scheduled, host: "host-2", dryRun: true) }
        return SchedulingAnswer(.rejected, dryRun: true, message: "No valid host was found.", filters: [], refusals: refusals)
    }

    /// Source hosts report that guests that did not leave certainly run there.
    func reportStayingGuests() { state.withLock { $0.failedPhase = "stayed" } }

    /// Source hosts report that they have sent this much more of a guest.
    func send(bytes: Int) { state.withLock { $0.sentBytes = bytes } }

    /// Source hosts queue the guest behind others.
    func queueMoves(_ isQueued: Bool) { state.withLock { $0.queuesMoves = isQueued } }

    /// Hosts fail to start servers with this error, permanently or until the next attempt.
    ///
    /// - Parameter host: nil for all hosts.
    func failOnHost(_ error: String?, reason: String? = nil, permanent: Bool = true, only host: String? = nil) {
        state.withLock { state in
            state.failsOnHost = error.map { ($0, reason, permanent) }
            state.failingHost = host
        }
    }

    /// Network and Block Storage refuse to release a server's ports and volumes.
    func refuseReleases(_ error: ResourceError?) { state.withLock { $0.releaseRefusal = error } }

    static func endpoint(_ host: String) -> JSONValue {
        ["uri": .string("qemu+tls://\(host)/system"), "address": .string(host), "directory": .string("/\(host)")]
    }
}

/// A cloud of two hosts, `host-1` and `host-2`, between which servers move.
extension TestCloud {
    static func withTwoHosts(
        settings: ComputeSettings = ComputeSettings(), _ body: (TestCloud) async throws -> Void
    ) async throws {
        try await with(settings: settings) { cloud in
            try await cloud.cloud.send(Fixtures.hello(host: "host-2"), cloud.consumer)
            try await cloud.database.write { try $0.execute("DELETE FROM outbox") }
            try await body(cloud)
        }
    }

    func act(_ id: String, _ body: JSONValue, version: String = "2.96", as token: String = "admin") async throws -> Answer {
        try await call("POST", "/v2.1/servers/\(id)/action", body, as: token, version: version)
    }

    /// The hosts that have the server's guest.
    func hosts(of id: String) -> [String] {
        ["host-1", "host-2"].filter { cloud.domains(on: $0)[id] != nil }
    }

    /// The server's host according to the rows of each service.
    func recordedHosts(of id: String) async throws -> Set<String> {
        try await database.read { connection in
            Set(
                try connection.query(
                    "SELECT host FROM servers WHERE id = \(id) UNION SELECT host_id FROM ports WHERE device_id = \(id)"
                ).map { try $0.string("host") })
        }
    }

    /// The migrations of a server, the newest first.
    func migrations(of id: String) async throws -> [JSONValue] {
        try await call("GET", "/v2.1/os-migrations?instance_uuid=\(id)", as: "admin").json["migrations"]?.arrayValue ?? []
    }

    /// Declares a host down or up, as the operator.
    func declare(_ host: String, isDown: Bool) async throws {
        _ = try await database.write { try $0.execute("UPDATE compute_services SET forced_down = \(isDown) WHERE host = \(host)") }
    }
}
