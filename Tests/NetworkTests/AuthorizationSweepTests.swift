import Database
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Every route of the Network API, for callers without access.
@Suite struct NetworkAuthorizationSweepTests {
    /// One resource of each kind in the project p1.
    private static func with(_ body: (RouteSweep) async throws -> Void) async throws {
        try await NetworkHarness.with { cloud in
            let external = try await cloud.external()
            let network = try await cloud.network()
            let subnet = try await cloud.subnet(network).id
            let router = try await cloud.make(
                "routers", "router", ["name": "r", "external_gateway_info": ["network_id": .string(external)]]
            ).id
            let port = try await cloud.make("ports", "port", ["network_id": .string(network)]).id
            #expect(try await cloud.call("PUT", "/ports/\(port)", as: "admin", ["port": ["binding:host_id": "h1"]]).status == 200)
            let group = try await cloud.make("security-groups", "security_group", ["name": "g"])
            let rule = group["security_group_rules"]?.arrayValue?.first?.id ?? ""
            let address = try await cloud.make("floatingips", "floatingip", ["floating_network_id": .string(external)]).id
            for (path, id) in [
                ("networks", network), ("ports", port), ("subnets", subnet), ("routers", router), ("floatingips", address),
                ("security-groups", group.id),
            ] {
                #expect(try await cloud.call("PUT", "/\(path)/\(id)/tags/t1").status < 300)
            }
            let agents = try await cloud.call("GET", "/agents", as: "admin")
            #expect(try await cloud.call("GET", "/agents").json["agents"] == [])
            let agent = agents.json["agents"]?.arrayValue?.first?.id ?? ""
            var parameters = [
                "project": "p1", "project_id": "p1", "tag": "t1", "alias": "router", "external": external, "/v2.0/agents/{id} id": agent,
            ]
            for (path, id) in [
                ("networks", network), ("subnets", subnet), ("routers", router), ("ports", port), ("floatingips", address),
                ("security-groups", group.id), ("security-group-rules", rule), ("network-ip-availabilities", network),
            ] {
                for route in cloud.api.resources.flatMap(\.routes) where route.path.hasPrefix("/v2.0/\(path)/{id}") {
                    parameters["\(route.path) id"] = id
                }
            }
            try await body(RouteSweep(cloud.api, database: cloud.database, parameters: parameters))
        }
    }

    private var duties: RouteSweep.Duties {
        RouteSweep.Duties(forAll: ["GET /v2.0/extensions/{alias}"])
    }

    @Test func aKeyGivesOneEffect() async throws {
        try await NetworkAuthorizationSweepTests.with { sweep in
            let network = try #require(sweep.parameters["/v2.0/networks/{id} id"])
            let group = try #require(sweep.parameters["/v2.0/security-groups/{id} id"])
            let external = try #require(sweep.parameters["external"])
            var bodies: [String: JSONValue] = [:]
            func add(_ path: String, _ singular: String, _ plural: String, _ values: [JSONValue]) {
                bodies["POST /v2.0/\(path) \(singular)"] = [singular: values[0]]
                bodies["POST /v2.0/\(path) \(plural)"] = [plural: [values[1]]]
            }
            add(
                "subnets", "subnet", "subnets",
                [1, 2].map { (number: Int) -> JSONValue in
                    ["network_id": .string(network), "ip_version": 4, "cidr": .string("10.7.\(number).0/24")]
                })
            add("ports", "port", "ports", Array(repeating: ["network_id": .string(network)], count: 2))
            add("floatingips", "floatingip", "floatingips", Array(repeating: ["floating_network_id": .string(external)], count: 2))
            add(
                "security-group-rules", "security_group_rule", "security_group_rules",
                [1, 2].map { (number: Int) -> JSONValue in
                    [
                        "security_group_id": .string(group), "direction": "ingress", "protocol": "tcp", "port_range_min": JSONValue(number),
                        "port_range_max": JSONValue(number),
                    ]
                })
            let findings = try await sweep.with(bodies: bodies).repeated("admin")
            #expect(findings == [])
        }
    }

    @Test("S4 S6 S10 S11: requirements of every service", arguments: RouteSweep.Duty.allCases)
    func s10EveryServiceOwes(_ duty: RouteSweep.Duty) async throws {
        try await NetworkAuthorizationSweepTests.with { sweep in
            let findings = try await sweep.findings(duty, duties)
            #expect(findings == [])
        }
    }

    @Test("S10: a router does not take the gateway's address of another project's network")
    func s10GatewaysOfSharedNetworks() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network("shared", as: "admin", ["shared": true])
            let shared = try await cloud.subnet(network, as: "admin")
            let own = try await cloud.subnet(try await cloud.network("own"), "10.1.0.0/24")
            let router = try await cloud.make("routers", "router", ["name": "r"]).id
            func add(_ subnet: String, as user: String = "member") async throws -> NetworkHarness.Answer {
                try await cloud.call("PUT", "/routers/\(router)/add_router_interface", as: user, ["subnet_id": .string(subnet)])
            }
            let refused = try await add(shared.id)
            #expect(refused.status == 400 && refused.message?.contains("is not owned by project making the request") == true)
            #expect(try await add(own.id).status == 200)
            // The address of an own port is not the gateway's.
            let port = try await cloud.make("ports", "port", ["network_id": .string(network)])
            let joined = try await cloud.call("PUT", "/routers/\(router)/add_router_interface", ["port_id": .string(port.id)])
            #expect(joined.status == 200, "\(joined.json)")
            #expect(
                try await cloud.call("PUT", "/routers/\(router)/remove_router_interface", ["port_id": .string(port.id)]).status == 200)
            #expect(try await add(shared.id, as: "admin").status == 200)
        }
    }

    /// A port of p1's server on a shared network of p2, as Compute requests it.
    @Test("S10: a service acting for a tenant cannot choose an address of another project's network")
    func s10AddressesOfSharedNetworks() async throws {
        try await NetworkHarness.with { cloud in
            let network = try await cloud.network("shared", as: "admin", ["shared": true])
            _ = try await cloud.subnet(network, as: "admin")
            let own = try await cloud.network("own")
            _ = try await cloud.subnet(own, "10.1.0.0/24")
            let foreign = try await cloud.network("foreign", as: "other")
            _ = try await cloud.subnet(foreign, "10.2.0.0/24", as: "other")
            func create(_ network: String, _ more: JSONObject = [:], _ subject: ActingSubject) async throws -> Int {
                var port = more
                port["network_id"] = .string(network)
                port["project_id"] = more["project_id"] ?? .string(subject.project)
                port["binding:host_id"] = "hv1"
                return try await cloud.call(
                    "POST", "/ports", as: "service", ["port": .object(port)], headers: subject.headers
                ).status
            }
            let member = ActingSubject.accepted(project: "p1", user: "u1")
            let administrator = ActingSubject(project: "admin", user: "admin", grounds: .user)
            let gateway: JSONObject = ["fixed_ips": [["ip_address": "10.0.0.1"]]]
            #expect(try await create(network, [:], member) == 201)
            #expect(try await create(network, gateway, member) == 403)
            #expect(try await create(network, ["fixed_ips": [["ip_address": "10.0.0.77"]]], member) == 403)
            #expect(try await create(network, ["mac_address": "fa:16:3e:00:00:77"], member) == 403)
            #expect(try await create(network, ["port_security_enabled": false], member) == 403)
            #expect(try await create(own, ["fixed_ips": [["ip_address": "10.1.0.77"]]], member) == 201)
            #expect(try await create(foreign, [:], member) == 404)
            #expect(try await create(own, [:], ActingSubject.accepted(project: "p2", user: "u3")) == 404)
            #expect(try await create(foreign, ["project_id": "p1"], administrator) == 201)
            // A user who had rights when the request was accepted and has none now.
            #expect(try await create(own, [:], ActingSubject(project: "p1", user: "gone", grounds: .user)) == 403)
            let count = try await cloud.database.read {
                try $0.query("SELECT count(*) AS n FROM ports WHERE project_id = 'p1' AND host_id = 'hv1'")[0].int("n")
            }
            #expect(count == 3)
        }
    }
}
