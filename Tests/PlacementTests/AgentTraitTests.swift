import Database
import JSON
import Kernel
import PlacementService
import TestKit
import Testing

/// Custom traits that agents report.
@Suite struct AgentTraitTests {
    @Test func agentsTakeTheirOwnTraitsBackAndOperatorsKeepTheirs() async throws {
        try await PlacementBench.with { bench in
            let id = try await bench.addHost("h1", traits: ["COMPUTE_NODE", "CUSTOM_WOLKE_CPU_RATES"])
            func traits() async throws -> Set<String> {
                let answer = try await bench.call("GET", "/resource_providers/\(id)/traits").json
                return Set(answer["traits"]?.arrayValue?.compactMap(\.stringValue) ?? [])
            }
            #expect(try await traits() == ["COMPUTE_NODE", "CUSTOM_WOLKE_CPU_RATES"])
            try await bench.test.database.write { connection in
                try connection.script(
                    """
                    INSERT INTO traits (name, created_at, updated_at) VALUES ('CUSTOM_FAST', now(), now());
                    INSERT INTO provider_traits (resource_provider_id, trait) SELECT id, 'CUSTOM_FAST' FROM resource_providers;
                    """)
            }
            try await bench.hear([
                "type": "host", "host": "h1", "resource_provider_id": .string(id), "inventories": ["VCPU": ["total": 4]],
                "traits": ["COMPUTE_NODE"], "enabled": true, "forced_down": false,
            ])
            #expect(try await traits() == ["COMPUTE_NODE", "CUSTOM_FAST"])
        }
    }
}
