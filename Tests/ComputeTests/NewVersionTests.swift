import ComputeService
import Database
import JSON
import Kernel
import Testing
import WebAPI
import Workflow

/// Microversions from 2.97 on.
@Suite struct NewVersionTests {
    @Test func sharesNeedAServiceThatIsNotHere() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/shares", version: "2.97").status == 501)
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)/shares", version: "2.96").status == 404)
        }
    }

    @Test func imagesHaveTheirPropertiesFrom298() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            try await cloud.database.write { connection in
                try connection.execute(
                    #"UPDATE servers SET image_properties = '{"hw_disk_bus": "virtio", "note": "mine", "os_type": null}' WHERE id = \#(id)"#
                )
            }
            let old = try await cloud.server(id, version: "2.97")["image"]
            let new = try await cloud.server(id, version: "2.98")["image"]
            #expect(old?["id"] == .string(Fixtures.image) && old?["properties"] == nil)
            #expect(new?["id"] == old?["id"] && new?["links"] == old?["links"])
            #expect(new?["properties"] == ["hw_disk_bus": "virtio"])
            try await cloud.database.write { try $0.execute("UPDATE servers SET image_id = NULL WHERE id = \(id)") }
            #expect(try await cloud.server(id, version: "2.98")["image"] == "")
        }
    }

    @Test func hintsAreShownFrom2100() async throws {
        try await TestCloud.with { cloud in
            let other = try await cloud.createServer()
            let body = TestCloud.body(top: ["os:scheduler_hints": ["different_host": .string(other)]])
            let creation = try await cloud.call("POST", "/v2.1/servers", body)
            let id = try #require(creation.json["server"]?["id"]?.stringValue)
            #expect(try await cloud.server(id, version: "2.99")["scheduler_hints"] == nil)
            #expect(try await cloud.server(id, version: "2.100")["scheduler_hints"] == ["different_host": .string(other)])
            #expect(try await cloud.server(other, version: "2.100")["scheduler_hints"] == [:])
            let changed = try await cloud.call("PUT", "/v2.1/servers/\(id)", ["server": ["name": "x"]], version: "2.100")
            #expect(changed.json["server"]?["scheduler_hints"] != nil)
        }
    }

    @Test func aVolumeIsAttachedInTheBackgroundFrom2101() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let path = "/v2.1/servers/\(id)/os-volume_attachments"
            let body: JSONValue = ["volumeAttachment": ["volumeId": .string(Fixtures.volume)]]
            let answer = try await cloud.call("POST", path, body, version: "2.101")
            #expect(answer.status == 202)
            #expect(answer.json == .null)
            #expect(try await cloud.call("GET", path).json["volumeAttachments"] == [])
            cloud.workWhileWaiting()
            try await cloud.engine().drain()
            let list = try await cloud.call("GET", path).json["volumeAttachments"]?.arrayValue
            #expect(list?.compactMap { $0["volumeId"] } == [.string(Fixtures.volume)])
            #expect(try await cloud.call("POST", path, body, version: "2.101").status == 400)
        }
    }

    @Test func flavorsAreFilteredByNameFrom2102() async throws {
        try await TestCloud.with { cloud in
            func names(_ query: String, version: String) async throws -> [String] {
                let answer = try await cloud.call("GET", "/v2.1/flavors\(query)", version: version)
                return (answer.json["flavors"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }
            }
            #expect(try await names("?name=l.rge", version: "2.102") == ["m1.large"])
            #expect(try await cloud.call("GET", "/v2.1/flavors?name=large", version: "2.101").status == 400)
            let old = try await cloud.call("GET", "/v2.1/flavors/1", version: "2.101").json["flavor"]
            let new = try await cloud.call("GET", "/v2.1/flavors/1", version: "2.102").json["flavor"]
            #expect(old?["rxtx_factor"] != nil && old?["OS-FLV-DISABLED:disabled"] != nil)
            #expect(new?["rxtx_factor"] == nil && new?["OS-FLV-DISABLED:disabled"] == nil && new?["ram"] == 512)
            let body: JSONValue = ["flavor": ["name": "x", "ram": 1, "vcpus": 1, "disk": 1, "rxtx_factor": 1]]
            #expect(try await cloud.call("POST", "/v2.1/flavors", body, as: "admin", version: "2.102").status == 400)
            #expect(try await cloud.call("POST", "/v2.1/flavors", body, as: "admin", version: "2.101").status == 200)
        }
    }

    @Test func unknownParametersAreRefusedEverywhereFrom2102() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let targets = [
                "/v2.1/servers/\(id)", "/v2.1/servers/\(id)/ips", "/v2.1/flavors/1", "/v2.1/limits", "/v2.1/servers/\(id)/metadata",
                "/v2.1/servers/\(id)/os-server-password", "/v2.1/servers/\(id)/topology", "/v2.1/servers", "/v2.1/flavors/1/os-extra_specs",
                "/v2.1/servers/\(id)/os-interface", "/v2.1/os-server-groups",
            ]
            for target in targets {
                #expect(try await cloud.call("GET", target + "?made_up=1", version: "2.102").status == 400, "\(target)")
                #expect(try await cloud.call("GET", target, version: "2.104").status == 200, "\(target)")
            }
            #expect(try await cloud.call("GET", "/v2.1/servers/\(id)?made_up=1", version: "2.101").status == 200)
            #expect(try await cloud.call("GET", "/v2.1/limits?tenant_id=p1", version: "2.102").status == 200)
            let action = try await cloud.call("POST", "/v2.1/servers/\(id)/action?x=1", ["lock": nil], version: "2.102")
            #expect(action.status == 400)
            #expect(action.message == "Invalid query parameter 'x'.")
        }
    }

    /// Every list refuses unknown parameters itself; no route is forgotten.
    @Test func noRouteTakesUnknownParameters() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer()
            let values = [
                "server_id": id, "flavor_id": "1", "project_id": "p1", "class": "default", "hypervisor_id": "x", "alias": "os-keypairs",
            ]
            var seen = 0
            for route in cloud.api.resources.flatMap(\.routes) where route.method == .get && route.action != nil && !route.isUnavailable {
                let path = route.path.split(separator: "/").map { part in
                    part.hasPrefix("{") ? values[String(part.dropFirst().dropLast())] ?? "1" : String(part)
                }.joined(separator: "/")
                let version = (route.versions.through ?? Microversion(2, 104))
                guard version >= Microversion(2, 102) else { continue }
                let answer = try await cloud.call("GET", "/\(path)?made_up=1", as: "admin", version: version.description)
                #expect(answer.status == 400, "\(route.path) \(answer.status)")
                seen += 1
            }
            #expect(seen > 40)
        }
    }

    @Test func aServerIsPinnedToItsZoneFrom2104() async throws {
        try await TestCloud.with { cloud in
            let id = try await cloud.createServer(["availability_zone": "nova"])
            func pin(_ zone: JSONValue, version: String = "2.104") async throws -> TestCloud.Answer {
                try await cloud.call("PUT", "/v2.1/servers/\(id)", ["server": ["pinned_availability_zone": zone]], version: version)
            }
            #expect(try await cloud.server(id, version: "2.104")["pinned_availability_zone"] == "nova")
            #expect(try await pin(nil, version: "2.103").status == 400)
            #expect(try await pin("nova").status == 200)
            #expect(try await pin("elsewhere").status == 409)
            let unpinned = try await pin(nil)
            #expect(unpinned.status == 200)
            #expect(unpinned.json["server"]?["pinned_availability_zone"] == .null)
            #expect(try await pin(nil).status == 200)
            let wrong = try await pin("elsewhere")
            #expect(wrong.status == 409)
            #expect(wrong.message.contains("current availability zone 'nova'"))
            #expect(try await pin("nova").json["server"]?["pinned_availability_zone"] == "nova")
        }
    }
}
