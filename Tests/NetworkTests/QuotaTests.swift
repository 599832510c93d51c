import JSON
import NetworkCore
import TestKit
import Testing

/// The usage of quotas equals the counted resources.
@Suite struct NetworkQuotaTests {
    @Test func everyQuotaIsCounted() async throws {
        try await NetworkHarness.with { cloud in
            let external = try await cloud.external()
            let network = try await cloud.network()
            let subnet = try await cloud.subnet(network)
            let router = try await cloud.make(
                "routers", "router", ["name": "r", "external_gateway_info": ["network_id": .string(external)]])
            let interface: JSONValue = ["subnet_id": .string(subnet.id)]
            #expect(try await cloud.call("PUT", "/routers/\(router.id)/add_router_interface", interface).status == 200)
            try await cloud.make("ports", "port", ["network_id": .string(network)])
            try await cloud.make("floatingips", "floatingip", ["floating_network_id": .string(external)])
            try await cloud.make("security-groups", "security_group", ["name": "s"])
            #expect(try await QuotaChecks.problems(NetworkQuotas.all, cloud.database) == [])
        }
    }
}
