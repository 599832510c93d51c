import BareMetalCore
import Cryptography
import Database
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import WebAPI

@testable import BareMetalService

@Suite struct RedfishTests {
    private struct Bench {
        let cloud: NodeFixture
        let stub: RedfishStub
        let server: StubServer
        let driver: RedfishHardware
        let id: String

        func node() async throws -> Node { try await cloud.record(id) }

        /// How often the machine was asked to reset, and how.
        var resets: [String] { server.requests.filter { $0.method == "POST" }.compactMap { $0.json["ResetType"]?.stringValue } }
    }

    private static func with(_ info: JSONObject = [:], _ body: (Bench) async throws -> Void) async throws {
        let stub = RedfishStub()
        let server = try StubServer { stub.answer($0) }
        defer { server.stop() }
        try await NodeFixture.with { cloud in
            var all: JSONObject = [
                "redfish_address": .string(server.url), "redfish_username": .string(RedfishStub.user),
                "redfish_password": .string(RedfishStub.password),
            ]
            for member in info.members { all[member.name] = member.value }
            let id = try await cloud.enroll("machine", ["driver": "redfish", "driver_info": .object(all)])
            let driver = RedfishHardware(
                secrets: NodeSecrets(keys: cloud.options.credentialKeys, ambient: Ambient()), certificates: nil, ambient: Ambient(),
                wait: PowerWait(ambient: Ambient(), poll: .milliseconds(2)))
            try await body(Bench(cloud: cloud, stub: stub, server: server, driver: driver, id: id))
        }
    }

    @Test func aControllerIsVerified() async throws {
        try await RedfishTests.with { bench in
            bench.stub.machine.withLock { $0.power = "On" }
            #expect(try await bench.cloud.provision(bench.id, "manage").status == 202)
            try await bench.cloud.settle()
            let node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "manageable" && node["power_state"] == "power on", "\(node)")
            let valid = try await bench.cloud.call("GET", "/v1/nodes/\(bench.id)/validate").json
            #expect(valid["power"]?["result"] == true && valid["deploy"]?["reason"] == "not supported", "\(valid)")
        }
    }

    @Test func powerChangesAndTheCallReturnsThen() async throws {
        try await RedfishTests.with { bench in
            let node = try await bench.node()
            #expect(try await bench.driver.power(of: node) == .off)
            bench.stub.machine.withLock { $0.delay = 3 }
            try await bench.driver.setPower(of: node, .on)
            #expect(try await bench.driver.power(of: node) == .on)
            // If the machine is already in the requested state, nothing is sent: a second call after a crash changes nothing.
            try await bench.driver.setPower(of: node, .on)
            try await bench.driver.setPower(of: node, .reboot)
            try await bench.driver.setPower(of: node, .softReboot)
            #expect(bench.resets == ["On", "ForceRestart", "GracefulShutdown", "On"])
            try await bench.driver.setPower(of: node, .off)
            #expect(try await bench.driver.power(of: node) == .off)
            bench.stub.machine.withLock { $0.kinds = ["On"] }
            try await bench.driver.setPower(of: node, .on)
            await #expect(throws: HardwareFailure.self) { try await bench.driver.setPower(of: node, .softOff) }
        }
    }

    /// A controller may accept a request and do nothing.
    @Test func powerThatDoesNotChangeIsAFailure() async throws {
        try await RedfishTests.with { bench in
            let node = try await bench.node()
            bench.stub.machine.withLock { machine in
                machine.power = "On"
                machine.delay = 1_000_000
            }
            let failure = await #expect(throws: HardwareFailure.self) {
                try await bench.driver.setPower(of: node, .softOff, timeout: 1)
            }
            #expect(failure?.description.contains("within 1 seconds") == true)
        }
    }

    @Test func sessionsAreReusedAndRenewed() async throws {
        try await RedfishTests.with { bench in
            let node = try await bench.node()
            for _ in 0..<3 { _ = try await bench.driver.power(of: node) }
            #expect(bench.stub.machine.withLock { $0.sessions } == 1)
            // The controller has ended the session.
            bench.stub.machine.withLock { $0.token = "other" }
            #expect(try await bench.driver.power(of: node) == .off)
            #expect(bench.stub.machine.withLock { $0.sessions } == 2)
        }
        try await RedfishTests.with { bench in
            bench.stub.machine.withLock { $0.hasSessions = false }
            let node = try await bench.node()
            #expect(try await bench.driver.power(of: node) == .off)
        }
        try await RedfishTests.with(["redfish_password": "wrong"]) { bench in
            let node = try await bench.node()
            let failure = await #expect(throws: HardwareFailure.self) { _ = try await bench.driver.power(of: node) }
            #expect(failure?.description.contains("the user or the password is wrong") == true)
            #expect(failure?.description.contains("wrong\"") == false)
        }
    }

    @Test("S10: a node with a wrong password gets no session of another node")
    func s10SessionsBelongToAPassword() async throws {
        try await RedfishTests.with { bench in
            let node = try await bench.node()
            #expect(try await bench.driver.power(of: node) == .off)
            let info: JSONObject = [
                "redfish_address": .string(bench.server.url), "redfish_username": .string(RedfishStub.user), "redfish_password": "guessed",
            ]
            let other = try await bench.cloud.enroll("other", ["driver": "redfish", "driver_info": .object(info)])
            let second = try await bench.cloud.record(other)
            await #expect(throws: HardwareFailure.self) { _ = try await bench.driver.power(of: second) }
        }
    }

    /// A controller that answers 503 while the power changes is asked again.
    @Test func aBusyControllerIsWaitedFor() async throws {
        try await RedfishTests.with(["redfish_system_id": "/redfish/v1/Systems/1"]) { bench in
            let node = try await bench.node()
            try await bench.driver.wait.until(.on, for: .on, 30) {
                let isFirst = bench.stub.machine.withLock { machine in
                    defer { machine.power = "On" }
                    return machine.power == "Off"
                }
                if isFirst { throw HardwareFailure(description: "busy", isTemporary: true) }
                return try await bench.driver.power(of: node)
            }
        }
    }

    @Test func errorsThatPassAreReadAgainAndOthersSayWhy() async throws {
        try await RedfishTests.with(["redfish_system_id": "/redfish/v1/Systems/1"]) { bench in
            let node = try await bench.node()
            bench.stub.machine.withLock { $0.failures = [500] }
            #expect(try await bench.driver.power(of: node) == .off)
            bench.stub.machine.withLock { $0.failures = [400] }
            let failure = await #expect(throws: HardwareFailure.self) { _ = try await bench.driver.power(of: node) }
            // Without the control character that could write to an operator's terminal.
            #expect(failure?.description.hasSuffix("400 to GET /redfish/v1/Systems/1: The BMC [31m is busy.") == true)
        }
    }

    @Test func bootDevices() async throws {
        try await RedfishTests.with { bench in
            let node = try await bench.node()
            #expect(try await bench.driver.bootDevice(of: node) == nil)
            bench.stub.machine.withLock { $0.etag = "e1" }
            try await bench.driver.setBootDevice(of: node, .pxe, isPersistent: false)
            #expect(try await bench.driver.bootDevice(of: node) == BootOverride(device: .pxe, isPersistent: false))
            try await bench.driver.setBootDevice(of: node, .disk, isPersistent: true)
            #expect(try await bench.driver.bootDevice(of: node) == BootOverride(device: .disk, isPersistent: true))
        }
    }

    @Test func anInspectionFindsTheMachine() async throws {
        try await RedfishTests.with { bench in
            let inventory = try await bench.driver.inspect(try await bench.node())
            #expect(inventory.properties == ["cpus": 8, "memory_mb": 16384, "cpu_arch": "x86_64", "local_gb": 19])
            let interfaces = inventory.document["inventory"]?["interfaces"]
            #expect(interfaces == [["name": "e1", "mac_address": "fa:16:3e:00:00:01", "has_carrier": true]])
            bench.stub.machine.withLock { $0.systems = ["/redfish/v1/Systems/1", "/redfish/v1/Systems/2"] }
            let node = try await bench.node()
            let failure = await #expect(throws: HardwareFailure.self) { _ = try await bench.driver.inspect(node) }
            #expect(failure?.description.contains("has 2 machines") == true)
        }
    }

    @Test("S12: what a node says of its controller leads to no other host, path or header")
    func s12SettingsAreChecked() throws {
        let good: JSONObject = ["redfish_address": "https://bmc.example"]
        func problem(_ changes: JSONObject, certificates: String? = nil) -> String? {
            var info = good
            for member in changes.members { info[member.name] = member.value }
            do {
                _ = try RedfishSettings(info, secrets: [:], certificates: certificates)
                return nil
            } catch { return error.description }
        }
        #expect(problem([:]) == nil)
        let refused: [(String, JSONValue)] = [
            ("redfish_address", "https://user:pw@bmc.example"), ("redfish_address", "https://bmc.example/path"),
            ("redfish_address", "file:///etc"),
            ("redfish_address", "https://bmc.example?x=y"), ("redfish_address", "https://bmc\r\nHost: x"), ("redfish_address", 1),
            ("redfish_address", .null), ("redfish_system_id", "//other.example/x"), ("redfish_system_id", "/redfish/../etc"),
            ("redfish_system_id", "Systems/1"), ("redfish_system_id", "/redfish/v1/Systems/1?x"), ("redfish_system_id", "/a b"),
            ("redfish_username", "a:b"), ("redfish_username", "a\nb"), ("redfish_auth_type", "none"),
            ("redfish_verify_ca", "/etc/shadow"), ("redfish_verify_ca", "../x"), ("redfish_verify_ca", "ca.pem"), ("redfish_verify_ca", 1),
        ]
        for (name, value) in refused { #expect(problem([name: value])?.contains(name) == true, "\(name) = \(value)") }
        #expect(problem(["redfish_verify_ca": "ca.pem"], certificates: "/etc/wolke/ca") == nil)
        for name in ["..", ".", "a/b", "../ca.pem"] {
            #expect(problem(["redfish_verify_ca": .string(name)], certificates: "/etc/wolke/ca") != nil, "\(name)")
        }
    }

    @Test("S12: a path that the controller names leads to no other host")
    func s12ForeignPathsAreNotFollowed() async throws {
        try await RedfishTests.with { bench in
            bench.stub.machine.withLock { $0.systems = ["//evil.example/redfish/v1/Systems/1"] }
            let node = try await bench.node()
            let failure = await #expect(throws: HardwareFailure.self) { _ = try await bench.driver.power(of: node) }
            #expect(failure?.description.contains("not one of its own") == true)
        }
    }

    @Test("S11: credentials of controllers are stored sealed, and never shown")
    func s11CredentialsAreSealed() async throws {
        try await RedfishTests.with { bench in
            let cloud = bench.cloud
            #expect(try await cloud.node(bench.id)["driver_info"]?["redfish_password"] == "******")
            func stored() async throws -> (text: String, sealed: String) {
                try await cloud.database.read { connection in
                    let row = try connection.query(
                        "SELECT driver_info::text AS i, encode(driver_secrets, 'hex') AS s FROM bare_metal_nodes")[0]
                    return (text: try row.string("i"), sealed: try row.string("s"))
                }
            }
            let first = try await stored()
            let word = Hexadecimal.encode(Array(RedfishStub.password.utf8))
            #expect(!first.text.contains(RedfishStub.password) && !first.sealed.contains(word))
            // What is shown can be sent back, and another member be changed, without losing the credential.
            let shown = try await cloud.node(bench.id)["driver_info"] ?? .null
            #expect(try await cloud.patch(bench.id, "replace", "/driver_info", shown).status == 200)
            #expect(try await cloud.patch(bench.id, "add", "/driver_info/redfish_system_id", "/redfish/v1/Systems/1").status == 200)
            // Who may change a node's description does not get its credential sent to a controller of his own.
            for (name, value) in [
                ("redfish_address", "https://evil.example"), ("redfish_verify_ca", false), ("redfish_auth_type", "basic"),
            ] as [(String, JSONValue)] {
                let answer = try await cloud.patch(bench.id, "add", "/driver_info/\(name)", value)
                #expect(answer.status == 400 && answer.fault.contains("must be given again"), "\(name): \(answer.json)")
            }
            let node = try await bench.node()
            let opened = try bench.driver.secrets.open(node.sealedSecrets, of: node.id)
            #expect(opened["redfish_password"]?.exposed == RedfishStub.password)
            #expect(try await cloud.patch(bench.id, "replace", "/driver_info/redfish_password", "another").status == 200)
            let second = try await stored()
            #expect(second.sealed != first.sealed)
            #expect(try await cloud.patch(bench.id, "remove", "/driver_info/redfish_password").status == 200)
            let without = try await bench.node()
            #expect(without.sealedSecrets == nil)
            for value in ["******", "", 1, "a\nb"] as [JSONValue] {
                let answer = try await cloud.patch(bench.id, "add", "/driver_info/redfish_password", value)
                #expect(answer.status == 400 && answer.fault.contains("driver_info/redfish_password"), "\(value): \(answer.json)")
            }
            #expect(try await cloud.patch(bench.id, "add", "/driver_info/other_password", "x").status == 400)
            // The credentials of one node do not open as those of another.
            #expect(try await cloud.patch(bench.id, "add", "/driver_info/redfish_password", "x").status == 200)
            let sealed = try await bench.node().sealedSecrets
            #expect(throws: (any Error).self) { try bench.driver.secrets.open(sealed, of: UUID128(high: 1, low: 2)) }
        }
    }
}
