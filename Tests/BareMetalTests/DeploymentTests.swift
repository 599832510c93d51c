@testable import BareMetalService
import BareMetalCore
import Cryptography
import Database
import JSON
import Kernel
import Testing

/// What a request to deploy carries: a config drive and steps.
@Suite struct DeploymentTests {
    /// A file that looks like one of gzip.
    private static let drive: [UInt8] = [0x1f, 0x8b, 8, 0, 1, 2, 3]
    private static var text: JSONValue { .string(Base64.encode(drive)) }
    private static func hash(_ bytes: [UInt8]) -> String { Hexadecimal.encode(HashAlgorithm.sha256.hash(bytes)) }

    private static func written(_ cloud: NodeFixture, _ id: String) async throws -> String? {
        try await cloud.database.read {
            try $0.query("SELECT config_drive_sha256 FROM bare_metal_fake_machines WHERE node_id = \(id)::uuid").first?
                .optionalString("config_drive_sha256")
        }
    }

    private static func stored(_ cloud: NodeFixture) async throws -> Int {
        try await cloud.database.read { try $0.query("SELECT count(*) AS n FROM bare_metal_config_drives")[0].int("n") }
    }

    @Test func theConfigDriveReachesTheMachine() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            #expect(try await cloud.provision(id, "active", ["configdrive": DeploymentTests.text]).status == 202)
            #expect(try await cloud.node(id)["instance_info"] == ["configdrive": "******"])
            try await cloud.settle()
            #expect(try await DeploymentTests.written(cloud, id) == DeploymentTests.hash(DeploymentTests.drive))
            // A rebuild without one keeps it, and one with another has that.
            #expect(try await cloud.provision(id, "rebuild").status == 202)
            try await cloud.settle()
            #expect(try await DeploymentTests.written(cloud, id) == DeploymentTests.hash(DeploymentTests.drive))
            let other = DeploymentTests.drive + [9]
            #expect(try await cloud.provision(id, "rebuild", ["configdrive": .string(Base64.encode(other))]).status == 202)
            try await cloud.settle()
            #expect(try await DeploymentTests.written(cloud, id) == DeploymentTests.hash(other))
            #expect(try await cloud.provision(id, "deleted").status == 202)
            try await cloud.settle()
            #expect(try await cloud.node(id)["instance_info"] == [:])
            #expect(try await DeploymentTests.stored(cloud) == 0)
            #expect(try await DeploymentTests.written(cloud, id) == nil)
        }
    }

    /// The database has neither its text nor its bytes.
    @Test("S17: config drives are sealed") func s17ConfigDrivesAreSealed() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            #expect(try await cloud.provision(id, "active", ["configdrive": DeploymentTests.text]).status == 202)
            let (sealed, all) = try await cloud.database.read { connection in
                let row = try connection.query("SELECT encode(sealed, 'hex') AS sealed, key_id FROM bare_metal_config_drives")[0]
                let audit = try connection.query("SELECT coalesce(string_agg(r::text, ' '), '') AS words FROM audit_records r")[0]
                let frames = try connection.query("SELECT coalesce(string_agg(w::text, ' '), '') AS words FROM workflows w")[0]
                return (try row.string("sealed"), try audit.string("words") + frames.string("words"))
            }
            #expect(!sealed.contains(Hexadecimal.encode(DeploymentTests.drive)))
            #expect(!sealed.contains(Hexadecimal.encode(Array((DeploymentTests.text.stringValue ?? "").utf8))))
            #expect(!all.contains(DeploymentTests.text.stringValue ?? "-"))
        }
    }

    @Test func otherConfigDrivesAreRefused() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            let values: [JSONValue] = [
                "not base64", "QUFB", "http://example.com/drive", ["meta_data": ["k": "v"]], 7, true, ["x"],
                .string(Base64.encode([0x1f, 0x8b] + [UInt8](repeating: 0, count: 760_000))),
            ]
            for value in values {
                let answer = try await cloud.provision(id, "active", ["configdrive": value])
                #expect(answer.status == 400 && answer.fault.contains("configdrive"), "\(answer.json)")
            }
            #expect(try await cloud.provision(id, "manage", ["configdrive": DeploymentTests.text]).status == 400)
            for path in ["/instance_info/configdrive", "/instance_info"] {
                let value: JSONValue = path.hasSuffix("info") ? ["configdrive": DeploymentTests.text] : "******"
                let answer = try await cloud.patch(id, "add", path, value)
                #expect(answer.status == 400 && answer.fault.contains("instance_info/configdrive"), "\(answer.json)")
            }
            #expect(try await cloud.state(id) == "available")
            #expect(try await DeploymentTests.stored(cloud) == 0)
        }
    }

    /// A patch that removes it from `instance_info` removes it.
    @Test func removedConfigDrivesAreForgotten() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            #expect(try await cloud.provision(id, "active", ["configdrive": DeploymentTests.text]).status == 202)
            try await cloud.settle()
            #expect(try await cloud.patch(id, "add", "/instance_info/image_source", "x").status == 200)
            #expect(try await DeploymentTests.stored(cloud) == 1)
            #expect(try await cloud.patch(id, "remove", "/instance_info/configdrive").status == 200)
            #expect(try await DeploymentTests.stored(cloud) == 0)
            #expect(try await cloud.provision(id, "rebuild").status == 202)
            try await cloud.settle()
            #expect(try await DeploymentTests.written(cloud, id) == nil)
        }
    }

    @Test func stepsRunByPriority() async throws {
        try await NodeFixture.with { cloud in
            let node = try await cloud.record(try await cloud.available("one"))
            let driver = try cloud.fleet.driver(of: node)
            func order(_ steps: [(String, String, Int)]) -> [String] {
                driver.deploySteps(steps.map { .init(interface: $0.0, step: $0.1, priority: $0.2) }).map(\.step)
            }
            #expect(order([]) == ["deploy"])
            #expect(order([("power", "reboot", 50), ("power", "power_on", 150)]) == ["power_on", "deploy", "reboot"])
            #expect(order([("deploy", "deploy", 10), ("power", "reboot", 50)]) == ["reboot", "deploy"])
            #expect(order([("deploy", "deploy", 0), ("power", "reboot", 0)]) == [])
        }
    }

    @Test func stepsTakeOnlyWhatTheyUse() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            let step: JSONObject = ["interface": "deploy", "step": "deploy"]
            func with(_ name: String, _ value: JSONValue) -> JSONValue {
                var changed = step
                changed[name] = value
                return .object(changed)
            }
            for wrong in [JSONValue.object(step), with("order", 1)] {
                let answer = try await cloud.provision(id, "active", ["deploy_steps": [wrong]])
                #expect(answer.status == 400, "\(answer.json)")
            }
            var withArguments = step
            withArguments["priority"] = 1
            withArguments["args"] = ["x": 1]
            let answer = try await cloud.provision(id, "active", ["deploy_steps": [.object(withArguments)]])
            #expect(answer.status == 400 && answer.fault.contains("no arguments"), "\(answer.json)")
            #expect(try await cloud.provision(id, "manage").status == 202)
            let clean: JSONValue = ["interface": "deploy", "step": "erase_devices", "priority": 1]
            #expect(try await cloud.provision(id, "clean", ["clean_steps": [clean]]).status == 400)
        }
    }

    /// Hardware without an implementation to deploy.
    @Test func whatCannotBeDeployedIsRefused() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll("one", ["driver": "redfish"])
            try await cloud.database.write {
                try $0.execute("UPDATE bare_metal_nodes SET provision_state = 'available' WHERE id = \(id)::uuid")
            }
            let answer = try await cloud.provision(id, "active")
            #expect(answer.status == 400 && answer.fault.contains("does not support deploy"), "\(answer.json)")
        }
    }

    /// Such a machine shares a chassis with others, or its controller has its power.
    @Test func machinesThatStayOnAreRestarted() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one", ["disable_power_off": true])
            #expect(try await cloud.provision(id, "active").status == 202)
            try await cloud.settle()
            #expect(try await cloud.provision(id, "deleted").status == 202)
            try await cloud.settle()
            let node = try await cloud.node(id)
            #expect(node["provision_state"] == "available" && node["power_state"] == "power on", "\(node)")
        }
    }

    @Test func theHistorySaysWhenNothingWasErased() async throws {
        try await NodeFixture.with { cloud in
            func says(_ id: String, _ words: String) async throws -> Bool {
                let history = try await cloud.call("GET", "/v1/nodes/\(id)/history").json["history"]?.arrayValue ?? []
                return history.contains { $0["event"]?.stringValue?.contains(words) == true }
            }
            let clean = try await cloud.available("clean")
            #expect(try await says(clean, "The node is clean and available."))
            #expect(try await !says(clean, "Nothing was erased"))
            let other = try await cloud.available("other", ["automated_clean": false])
            #expect(try await says(other, "Nothing was erased"))
        }
    }
}
