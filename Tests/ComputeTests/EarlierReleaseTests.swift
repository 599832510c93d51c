import Client
@testable import ComputeService
import Database
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import Workflow

/// Servers, replicas and services of release 0.1.0.
@Suite struct EarlierReleaseTests {
    private func desired(_ cloud: TestCloud) -> JSONValue { cloud.cloud.received.last { $0["server"] != nil }?["server"] ?? .null }

    /// Release 0.1.0 accepted a server with any extra specs and properties, but did not apply this hardware.
    @Test func uncheckedHardwareHasNoEffect() async throws {
        try await TestCloud.with { cloud in
            let specs: JSONValue = ["extra_specs": ["hw:cpu_policy": "dedicated"]]
            #expect(try await cloud.call("POST", "/v2.1/flavors/1/os-extra_specs", specs, as: "admin").status == 200)
            let id = try await cloud.createServer()
            #expect(desired(cloud)["hardware_checked"] == true)
            #expect(try await cloud.server(id)["flavor"]?["hardware_checked"] == nil)
            _ = try await cloud.database.write { try $0.execute("UPDATE servers SET flavor = flavor - 'hardware_checked'") }
            func act(_ body: JSONValue) async throws -> TestCloud.Answer {
                let answer = try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, as: "admin")
                try await cloud.engine().drain()
                try await cloud.cloud.deliver(to: cloud.consumer)
                return answer
            }
            #expect(try await act(["reboot": ["type": "HARD"]]).status == 202)
            #expect(desired(cloud)["hardware_checked"] ?? .null == .null)
            #expect(desired(cloud)["extra_specs"]?["hw:cpu_policy"] == "dedicated")
            let topology = try await cloud.call("GET", "/v2.1/servers/\(id)/topology").json
            #expect(topology["nodes"] == [], "\(topology)")
            // The rebuild checks the hardware, and the host was not chosen for it.
            let rebuild = try await act(["rebuild": ["imageRef": .string(Fixtures.image)]])
            #expect(rebuild.status == 400 && rebuild.message.contains("dedicated processors"), "\(rebuild.json)")
            _ = try await cloud.database.write {
                try $0.execute("UPDATE servers SET flavor = jsonb_set(flavor, '{extra_specs}', '{\"hw:watchdog_action\": \"none\"}')")
            }
            _ = try await cloud.database.write { connection in
                try connection.execute(
                    """
                    UPDATE hypervisors SET capabilities = jsonb_set(capabilities, '{traits}',
                        '["COMPUTE_NODE", "CUSTOM_WOLKE_GUEST_HARDWARE"]')
                    """)
            }
            #expect(try await act(["rebuild": ["imageRef": .string(Fixtures.image)]]).status == 202)
            #expect(desired(cloud)["hardware_checked"] == true)
        }
    }

    /// Workflows may wait for hours, so an earlier build may have begun one.
    @Test func everyVersionThatWasWrittenIsCarriedOn() async throws {
        try await TestCloud.with { cloud in
            for (kind, definitions) in Dictionary(grouping: cloud.module.workflows, by: \.kind) {
                let newest = definitions.map(\.version).max() ?? 0
                let versions = definitions.reduce(into: Set<Int>()) { $0.formUnion($1.versions) }
                #expect(versions == Set(1...newest), "\(kind)")
            }
        }
    }

    /// Moves that development builds after release 0.1.0 have begun.
    @Test(arguments: ["migrate", "evacuate", "resize"]) func aMoveOfTheFirstVersionIsCarriedOn(verb: String) async throws {
        try await TestCloud.withTwoHosts { cloud in
            let id = try await cloud.createServer([
                "imageRef": "<absent>",
                "block_device_mapping_v2": [
                    [
                        "boot_index": 0, "uuid": .string(Fixtures.image), "source_type": "image", "destination_type": "volume",
                        "volume_size": 1, "delete_on_termination": true,
                    ]
                ],
            ])
            if verb == "evacuate" {
                try await cloud.declare("host-1", isDown: true)
                cloud.cloud.silence("host-1")
            }
            let bodies: [String: JSONValue] = [
                "migrate": ["migrate": nil], "evacuate": ["evacuate": [:]], "resize": ["resize": ["flavorRef": "2"]],
            ]
            #expect(try await cloud.act(id, bodies[verb] ?? .null, version: "2.94").status / 100 == 2)
            let changed = try await cloud.database.write {
                try $0.execute("UPDATE workflows SET version = 1, frame = frame - 'disks' - 'move' WHERE kind = \("server." + verb)")
            }
            #expect(changed == 1)
            try await cloud.engine().drain()
            let server = try await cloud.server(id, as: "admin")
            #expect(server["OS-EXT-SRV-ATTR:host"] == (verb == "resize" ? "host-1" : "host-2"), "\(server)")
            #expect(server["status"] == (verb == "evacuate" ? "ACTIVE" : "VERIFY_RESIZE"), "\(server)")
            #expect(try await cloud.leftovers() == [])
        }
    }

    private func network(_ bindings: JSONValue) throws -> (network: RemoteNetwork, server: StubServer) {
        let server = try StubServer { request in
            switch request.line {
            case "POST /v3/auth/tokens":
                let services: [JSONValue] = ["network", "placement"].map { type in
                    [
                        "type": .string(type), "name": .string(type),
                        "endpoints": [
                            [
                                "interface": "public", "region_id": "RegionOne", "region": "RegionOne",
                                "url": .string("http://" + (request.headers["host"] ?? "") + "/network"),
                            ]
                        ],
                    ]
                }
                let expiry = (SystemTime().now() + .seconds(3600)).iso8601Microseconds
                return .json(
                    201,
                    [
                        "token": [
                            "expires_at": .string(expiry), "user": ["id": "u1", "name": "compute"],
                            "project": ["id": "p1", "name": "service"],
                            "roles": [["id": "r1", "name": "service"]], "catalog": .array(services),
                        ]
                    ], headers: [("x-subject-token", "token")])
            case "POST /network/v2.0/ports/p/bindings":
                return .json(409, ["NeutronError": ["type": "PortBindingError", "message": "it is not bound", "detail": ""]])
            case "GET /network/v2.0/ports/p/bindings": return .json(200, ["bindings": bindings])
            default: return .json(404, [:])
            }
        }
        let configuration = CloudConfiguration(
            name: "stub", authURL: server.url + "/v3",
            credentials: .password(user: .name("compute", domain: .id("default")), password: Secret("secret")),
            scope: .project(.name("service", domain: .id("default"))))
        return (RemoteNetwork(client: RESTClient(configuration, ambient: Ambient())), server)
    }

    /// Network answers 409 in two cases: the port has the binding, or it is bound to no host at all.
    @Test func aBindingThatWasRefusedIsNoBinding() async throws {
        let subject = ActingSubject.accepted(project: "p1", user: "u1")
        let (bound, first) = try network([["host": "host-1"], ["host": "host-2"]])
        defer { first.stop() }
        try await bound.bind(port: "p", host: "host-2", as: subject)
        let (unbound, second) = try network([])
        defer { second.stop() }
        let error = await #expect(throws: ResourceError.self) { try await unbound.bind(port: "p", host: "host-2", as: subject) }
        #expect(error?.code == .conflict, "\(String(describing: error))")
    }
}
