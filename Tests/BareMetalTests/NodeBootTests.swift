import BareMetalCore
import Database
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import WebAPI
import Workflow

/// Boot mode, secure boot and virtual media through the API.
@Suite struct NodeBootTests {
    @Test func bootModeAndSecureBoot() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            func set(_ name: String, _ target: JSONValue, version: String = "1.96") async throws -> NodeFixture.Answer {
                try await cloud.call("PUT", "/v1/nodes/\(id)/states/\(name)", ["target": target], version: version)
            }
            // The first question to the controller has recorded them.
            let first = try await cloud.node(id)
            #expect(first["boot_mode"] == "uefi" && first["secure_boot"] == false, "\(first)")
            #expect(try await set("secure_boot", true).status == 202)
            #expect(try await set("boot_mode", "bios").status == 409)
            try await cloud.settle()
            #expect(try await cloud.node(id)["secure_boot"] == true)
            #expect(try await set("boot_mode", "bios").status == 202)
            try await cloud.settle()
            let states = try await cloud.call("GET", "/v1/nodes/\(id)/states").json
            #expect(states["boot_mode"] == "bios" && states["secure_boot"] == false, "\(states)")
            #expect(try await set("secure_boot", "True").status == 202)
            try await cloud.settle()
            let node = try await cloud.node(id)
            #expect(node["last_error"]?.stringValue?.contains("secure boot on): Secure boot needs the boot mode uefi") == true, "\(node)")
            for (name, value) in [("boot_mode", "legacy"), ("boot_mode", .null), ("secure_boot", .null), ("secure_boot", "maybe")]
                as [(String, JSONValue)]
            {
                let answer = try await set(name, value)
                #expect(answer.status == 400 && answer.fault.contains("target"), "\(answer.json)")
            }
            #expect(try await set("boot_mode", "uefi", version: "1.75").status == 404)
            let history = try await cloud.call("GET", "/v1/nodes/\(id)/history").json["history"]?.arrayValue ?? []
            #expect(history.contains { $0["event"] == "The boot settings were changed: boot mode bios." && $0["user"] != .null })
        }
    }

    @Test func virtualMedia() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            let path = "/v1/nodes/\(id)/vmedia"
            let url: JSONValue = "https://images.example/a.iso"
            #expect(try await cloud.call("POST", path, ["device_type": "cdrom", "image_url": url]).status == 204)
            let drives = try await cloud.call("GET", path).json.arrayValue ?? []
            #expect(drives.contains { $0 == ["media_types": ["CD", "DVD"], "inserted": true, "image": url] }, "\(drives)")
            #expect(drives.contains { $0 == ["media_types": ["Floppy"], "inserted": false, "image": .null] }, "\(drives)")
            #expect(try await cloud.call("DELETE", path + "?device_types=floppy,disk").status == 204)
            #expect(try await cloud.call("GET", path).json.arrayValue?.filter { $0["inserted"] == true }.count == 1)
            #expect(try await cloud.call("DELETE", path).status == 204)
            #expect(try await cloud.call("GET", path).json.arrayValue?.filter { $0["inserted"] == true }.isEmpty == true)
            #expect(try await cloud.call("GET", path, version: "1.92").status == 404)
            #expect(try await cloud.call("DELETE", path, version: "1.88").status == 404)
            for query in ["?device_types=tape", "?devices=cdrom"] {
                #expect(try await cloud.call("DELETE", path + query).status == 400, "\(query)")
            }
            let refused: [(String, JSONValue)] = [
                ("device_type", "tape"), ("image_url", "ftp://h/i"), ("image_url", "nfs://h/i"), ("image_url", "http://"),
                ("image_url", "http://user:word@h/i"), ("image_url", "http://h/i\nx"), ("image_url", "file:///etc/shadow"),
                ("image_download_source", "local"), ("username", "x"),
            ]
            for (name, value) in refused {
                var body: JSONObject = ["device_type": "cdrom", "image_url": url, "image_download_source": "http"]
                body[name] = value
                let answer = try await cloud.call("POST", path, .object(body))
                #expect(answer.status == 400 && answer.fault.contains(name), "\(name): \(answer.json)")
            }
        }
    }

    @Test func nothingChangesWhileANodeIsWorkedOn() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            #expect(try await cloud.provision(id, "active").status == 202)
            let calls: [(String, String, JSONValue?)] = [
                ("PUT", "/states/boot_mode", ["target": "bios"]), ("PUT", "/states/secure_boot", ["target": true]),
                ("POST", "/vmedia", ["device_type": "cdrom", "image_url": "http://h/i"]), ("DELETE", "/vmedia", nil),
            ]
            for (method, place, body) in calls {
                #expect(try await cloud.call(method, "/v1/nodes/\(id)" + place, body).status == 409, "\(method) \(place)")
            }
        }
    }

    /// Nodes have no foreign key to them.
    @Test func aRemovedNodeLeavesNothing() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            #expect(try await cloud.call("PUT", "/v1/nodes/\(id)/states/boot_mode", ["target": "bios"]).status == 202)
            try await cloud.settle()
            #expect(try await cloud.call("DELETE", "/v1/nodes/\(id)").status == 204)
            let rows = try await cloud.database.read {
                try $0.query("SELECT count(*) AS n FROM bare_metal_fake_firmware")[0].int("n")
            }
            #expect(rows == 0)
        }
    }

    @Test func bootSettingsUnderEveryDisturbance() async throws {
        try await NodeFixture.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "node_boot_settings" })
            for (number, variant) in WorkflowChecks(definition).variants.enumerated() {
                let id = try await cloud.available("n\(number)")
                #expect(
                    try await cloud.call("PUT", "/v1/nodes/\(id)/states/boot_mode", ["target": "bios"]).status == 202, "\(variant.name)")
                try await cloud.settle([variant.definition])
                let node = try await cloud.node(id)
                #expect(node["reservation"] == .null, "\(variant.name)")
                if variant.succeeds { #expect(node["boot_mode"] == "bios" && node["last_error"] == .null, "\(variant.name)") }
            }
        }
    }
}
