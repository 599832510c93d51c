import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import NetworkService

/// Reads lists page by page: with null or equal values too, each item is returned once, and the pages end.
@Suite struct NetworkListTests {
    private static func with(_ body: (NetworkHarness, [String: String]) async throws -> Void) async throws {
        try await NetworkHarness.with { cloud in
            let external = try await cloud.external()
            var parameters: [String: String] = [:]
            var network = ""
            for n in 0..<3 {
                network = try await cloud.network("net\(n % 2)")
                let gateway: JSONValue = n == 1 ? .null : .string("10.\(n).0.1")
                let subnet = try await cloud.subnet(network, "10.\(n).0.0/24", as: "member", ["gateway_ip": gateway]).id
                var router: JSONObject = ["name": "r"]
                if n == 0 { router["external_gateway_info"] = ["network_id": .string(external)] }
                let routerID = try await cloud.make("routers", "router", .object(router)).id
                if n == 0 { _ = try await cloud.call("PUT", "/routers/\(routerID)/add_router_interface", ["subnet_id": .string(subnet)]) }
                let port = try await cloud.make("ports", "port", ["network_id": .string(network), "name": .string("p\(n % 2)")])
                var address: JSONObject = ["floating_network_id": .string(external)]
                if n == 0 { address["port_id"] = .string(port.id) }
                _ = try await cloud.make("floatingips", "floatingip", .object(address))
                _ = try await cloud.make("security-groups", "security_group", ["name": .string("g\(n)")])
                parameters["/v2.0/networks/{id} id"] = network
            }
            parameters["id"] = network
            for project in ["p1", "p2", "p3"] {
                #expect(try await cloud.call("PUT", "/quotas/\(project)", as: "admin", ["quota": ["network": 50]]).status == 200)
            }
            try await body(cloud, parameters)
        }
    }

    @Test func everySortedListIsCompleteDespiteNulls() async throws {
        try await Self.with { cloud, _ in
            let sweep = ListSweep(cloud.api, token: "admin")
            let lists: [ResourceKind] = [.networks, .subnets, .ports, .routers, .floatingIPs, .securityGroups, .securityGroupRules]
            for list in lists {
                let keys = Set(list.table.fields.filter(\.sortable).map(\.name)).sorted()
                #expect(keys.count >= 4, "\(list.name)")
                try await sweep.walk("/v2.0/\(list.path)", collection: list.plural, sortKeys: keys)
            }
        }
    }

    @Test func theGatewaysThatAreNotThereAreInTheList() async throws {
        try await Self.with { cloud, _ in
            let first = try await cloud.call("GET", "/subnets?sort_key=gateway_ip&limit=1", as: "admin").json
            let marker = first["subnets"]?[0].id ?? ""
            let rest = try await cloud.call("GET", "/subnets?sort_key=gateway_ip&marker=\(marker)", as: "admin").json
            #expect(rest["subnets"]?.count == 3)
        }
    }

    @Test func answersFitTheirSchemas() async throws {
        try await Self.with { cloud, parameters in
            let sweep = RouteSweep(cloud.api, parameters: parameters)
            let (findings, compared) = try await sweep.answersDifferingFromSchemas(["admin", "member"])
            #expect(findings == [])
            #expect(sweep.undeclaredAnswers(["GET /": "a document of versions", "GET /v2.0": "a document of versions"]) == [])
            #expect(try await sweep.comparisonsWithoutIndex(cloud.database).findings == [])
            #expect(compared >= 15)
        }
    }

    @Test("S8: callers cannot sort or filter by fields that they may not see")
    func s8HiddenFieldsCannotBeSortedOrFiltered() async throws {
        try await Self.with { cloud, _ in
            let query = "sort_key=provider:segmentation_id"
            #expect(try await cloud.call("GET", "/networks?\(query)", as: "admin").status == 200)
            #expect(try await cloud.call("GET", "/networks?\(query)", as: "member").status == 400)
            // A tenant's network: the external one is flat and has no segment.
            let network = try await cloud.call("GET", "/networks?name=net1", as: "admin").json["networks"]?[0]
            let segment = try #require(network?["provider:segmentation_id"]?.intValue)
            let filter = "provider:segmentation_id=\(segment)"
            #expect(try await cloud.call("GET", "/networks?\(filter)", as: "admin").json["networks"]?.count == 1)
            #expect(try await cloud.call("GET", "/networks?\(filter)", as: "member").json["networks"]?.count == 0)
        }
    }

    @Test func everyListComesInPages() async throws {
        try await Self.with { cloud, parameters in
            let (findings, walked) = try await RouteSweep(cloud.api, parameters: parameters)
                .unpaged(["admin"], except: ["GET /v2.0/extensions", "GET /v2.0/availability_zones"])
            #expect(findings == [])
            #expect(walked >= 9)
            // Zones have no key for a marker.
            #expect(try await cloud.call("GET", "/availability_zones?limit=1").json["availability_zones"]?.count == 1)
            #expect(try await cloud.call("GET", "/availability_zones?marker=nova").status == 400)
            #expect(try await cloud.call("GET", "/extensions?limit=1").status == 400)
            #expect(try await cloud.call("GET", "/agents?limit=1&marker=nothing", as: "admin").status == 400)
        }
    }
}
