import ComputeCore
@testable import ComputeService
import Database
import JSON
import Kernel
import Testing

/// Addresses of servers, external events, topology and certificates.
@Suite struct SmallRouteTests {
    private func addresses(_ cloud: TestCloud, _ id: String) async throws -> [String] {
        (try await cloud.server(id)["addresses"]?["net"]?.arrayValue ?? []).compactMap { $0["addr"]?.stringValue }
    }

    @Test func addressesComeAndGo() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            func act(_ body: JSONValue, version: String = "2.43") async throws -> TestCloud.Answer {
                try await cloud.call("POST", "/v2.1/servers/\(id)/action", body, version: version)
            }
            let add: JSONValue = ["addFixedIp": ["networkId": .string(Fixtures.network)]]
            let before = try await addresses(cloud, id)
            #expect(before.count == 1)
            #expect(try await act(add, version: "2.44").status == 400)
            #expect(try await act(add).status == 202)
            let after = try await addresses(cloud, id)
            #expect(after.count == 2 && after.contains(before[0]))
            let added = try #require(after.first { $0 != before[0] })
            #expect(try await act(["addFixedIp": ["networkId": .string(Fixtures.foreignNetwork)]]).status == 404)
            #expect(try await act(["removeFixedIp": ["address": .string(added)]]).status == 202)
            #expect(try await addresses(cloud, id) == before)
            let unknown = try await act(["removeFixedIp": ["address": .string(added)]])
            #expect(unknown.status == 400)
            #expect(unknown.message == "Fixed IP '\(added)' not found for server '\(id)'.")
            cloud.cloud.exhaust(subnet: Fixtures.subnet)
            let full = try await act(add)
            #expect(full.status == 400)
            #expect(full.message == "No fixed IP addresses available for network: \(Fixtures.network)")
            #expect(try await addresses(cloud, id) == before)
        }
    }

    @Test func networksAreSentAgain() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            try await cloud.cloud.work(cloud.consumer)
            let sent = cloud.cloud.received.count
            func act(_ key: String, as token: String) async throws -> Int {
                try await cloud.call("POST", "/v2.1/servers/\(id)/action", .object([key: nil]), as: token).status
            }
            #expect(try await act("injectNetworkInfo", as: "member") == 403)
            #expect(try await act("injectNetworkInfo", as: "admin") == 202)
            try await cloud.cloud.work(cloud.consumer)
            #expect(cloud.cloud.received.count == sent + 1)
            #expect(try await act("resetNetwork", as: "admin") == 410)
        }
    }

    @Test func snapshotsForStorageDriversAreNotAvailable() async throws {
        try await TestCloud.with { cloud in
            let path = "/v2.1/os-assisted-volume-snapshots"
            let body: JSONValue = [
                "snapshot": ["volume_id": .string(Fixtures.volume), "create_info": ["snapshot_id": "s", "type": "qcow2"]]
            ]
            for (method, target, body) in [("POST", path, body), ("DELETE", path + "/s", nil)] as [(String, String, JSONValue?)] {
                #expect(try await cloud.call(method, target, body, as: "member").status == 403)
                let answer = try await cloud.call(method, target, body, as: "admin")
                #expect(answer.status == 501 && answer.message.contains("Block Storage makes those of attached volumes"), "\(answer.json)")
            }
        }
    }

    @Test func eventsAreAnsweredOneByOne() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            try await cloud.cloud.work(cloud.consumer)
            let sent = cloud.cloud.received.count
            func send(_ events: [JSONValue], as token: String = "admin", version: String = "2.93") async throws -> TestCloud.Answer {
                try await cloud.call("POST", "/v2.1/os-server-external-events", ["events": .array(events)], as: token, version: version)
            }
            func event(_ name: String, _ server: String, tag: String? = nil) -> JSONValue {
                var event: JSONObject = ["name": .string(name), "server_uuid": .string(server)]
                if let tag { event["tag"] = .string(tag) }
                return .object(event)
            }
            let good = try await send([event("network-changed", id, tag: Fixtures.port)])
            #expect(good.status == 200)
            #expect(
                good.json["events"] == [
                    [
                        "name": "network-changed", "server_uuid": .string(id), "tag": .string(Fixtures.port), "code": 200,
                        "status": "completed",
                    ]
                ])
            try await cloud.cloud.work(cloud.consumer)
            #expect(cloud.cloud.received.count == sent + 1)
            let mixed = try await send([
                event("network-vif-plugged", id), event("network-changed", Fixtures.image), event("volume-extended", id),
                event("volume-extended", id, tag: Fixtures.volume), event("volume-reimaged", id),
            ])
            #expect(mixed.status == 207)
            #expect(mixed.json["events"]?.arrayValue?.compactMap { $0["code"]?.intValue } == [200, 404, 400, 200, 422])
            #expect(try await send([event("network-changed", id)], as: "member").status == 403)
            #expect(try await send([event("power-update", id, tag: "POWER_ON")], version: "2.75").status == 400)
            #expect(try await send([event("made-up", id)]).status == 400)
            #expect(try await send([]).status == 400)
        }
    }

    @Test func theTopologyIsTheFlavors() async throws {
        try await TestCloud.with { cloud in
            let plain = try await cloud.createServer()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(plain)/topology").json == ["nodes": [], "pagesize_kb": nil])
            #expect(try await cloud.call("GET", "/v2.1/servers/\(plain)/topology", version: "2.77").status == 404)
            let specs: JSONValue = ["extra_specs": ["hw:numa_nodes": "2"]]
            #expect(try await cloud.call("POST", "/v2.1/flavors/2/os-extra_specs", specs, as: "admin").status == 200)
            let id = try await cloud.createServer(["flavorRef": "2"])
            let node: JSONObject = ["memory_mb": 4096, "siblings": [], "vcpu_set": [0, 1]]
            var second = node
            second["vcpu_set"] = [2, 3]
            let shown = try await cloud.call("GET", "/v2.1/servers/\(id)/topology")
            #expect(shown.json == ["nodes": [.object(node), .object(second)], "pagesize_kb": nil])
            // Operators also see the host's processors.
            var detailed = node
            (detailed["cpu_pinning"], detailed["host_node"]) = ([:], .null)
            let all = try await cloud.call("GET", "/v2.1/servers/\(id)/topology", as: "admin").json["nodes"]?.arrayValue
            #expect(all?.first == .object(detailed))
        }
    }

    @Test func certificatesAreKeyPairs() async throws {
        try await TestCloud.with { cloud in
            let path = "/v2.1/os-keypairs"
            let body: JSONValue = ["keypair": ["name": "win", "type": "x509", "user_id": "u1"]]
            let creation = try await cloud.call("POST", path, body, version: "2.91")
            #expect(creation.status == 201, "\(creation.json)")
            let key = try #require(creation.json["keypair"])
            #expect(key["type"] == "x509")
            #expect(key["private_key"]?.stringValue?.hasPrefix("-----BEGIN PRIVATE KEY-----\n") == true)
            let text = try #require(key["public_key"]?.stringValue)
            let certificate = try CertificateText.certificate(in: text)
            #expect(key["fingerprint"]?.stringValue == CertificateText.fingerprint(certificate))
            #expect(key["fingerprint"]?.stringValue?.utf8.count == 59)
            let imported = try await cloud.call(
                "POST", path, ["keypair": ["name": "given", "type": "x509", "public_key": .string("note\r\n\(text)")]])
            #expect(imported.status == 201)
            #expect(imported.json["keypair"]?["fingerprint"] == key["fingerprint"])
            #expect(try await cloud.call("GET", path + "/given").json["keypair"]?["type"] == "x509")
            for bad in ["ssh-ed25519 AAAA", text.replacing("MI", with: "AA"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"] {
                let answer = try await cloud.call("POST", path, ["keypair": ["name": "bad", "type": "x509", "public_key": .string(bad)]])
                #expect(answer.status == 400)
                #expect(answer.message.hasPrefix("Keypair data is invalid: failed to generate X509 fingerprint"), "\(answer.message)")
            }
            _ = try await cloud.createServer(["key_name": "win"])
            let sent = cloud.cloud.received.last { $0["server"] != nil }
            #expect(sent?["server"]?["metadata"]?["keys"] == [["name": "win", "type": "x509", "data": .string(text)]])
        }
    }

    @Test func imagesAreLoadedAheadOnTheHostsOfAnAggregate() async throws {
        try await TestCloud.with { cloud in
            let creation = try await cloud.call("POST", "/v2.1/os-aggregates", ["aggregate": ["name": "a"]], as: "admin")
            let id = try #require(creation.json["aggregate"]?["id"]?.intValue)
            let path = "/v2.1/os-aggregates/\(id)"
            _ = try await cloud.call("POST", path + "/action", ["add_host": ["host": "host-1"]], as: "admin")
            func cache(_ images: [String], as token: String = "admin", path: String? = nil, version: String = "2.81") async throws -> Int {
                let body: JSONValue = ["cache": .array(images.map { ["id": .string($0)] })]
                return try await cloud.call("POST", path ?? "/v2.1/os-aggregates/\(id)/images", body, as: token, version: version)
                    .status
            }
            #expect(try await cache([Fixtures.image]) == 202)
            try await cloud.cloud.work(cloud.consumer)
            let order = try #require(cloud.cloud.received.last { $0["type"] == "cache_images" })
            #expect(order["images"]?.arrayValue?.compactMap { $0["id"] } == [.string(Fixtures.image)])
            #expect(order["images"]?.arrayValue?.first?["administrator"] != nil)
            #expect(try await cache([]) == 400)
            #expect(try await cache([Fixtures.image, Fixtures.image]) == 400)
            #expect(try await cache([Fixtures.queuedImage]) == 400)
            #expect(try await cache([Fixtures.volume]) == 400)
            #expect(try await cache([Fixtures.image], as: "member") == 403)
            #expect(try await cache([Fixtures.image], version: "2.80") == 404)
            #expect(try await cache([Fixtures.image], path: "/v2.1/os-aggregates/99/images") == 404)
            let orders = cloud.cloud.received.count { $0["type"] == "cache_images" }
            try await cloud.database.write { try $0.execute("UPDATE compute_services SET enabled = false") }
            #expect(try await cache([Fixtures.image]) == 202)
            try await cloud.cloud.work(cloud.consumer)
            #expect(cloud.cloud.received.count { $0["type"] == "cache_images" } == orders)
        }
    }
}
