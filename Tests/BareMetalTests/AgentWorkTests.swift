import BareMetalCore
import Cryptography
import Database
import Foundation
import JSON
import Kernel
import ServiceKit
import Synchronization
import TestKit
import Testing
import WebAPI
import Workflow

@testable import BareMetalService

/// Inspecting, cleaning and deploying by an agent in the node's ramdisk.
@Suite struct AgentWorkTests {
    private static let address = "52:54:00:00:00:01"
    private static let direct: JSONObject = ["deploy_interface": "direct", "inspect_interface": "agent"]
    private static let image: JSONObject = [
        "image_source": "https://images.example/debian.qcow2", "image_disk_format": "qcow2", "image_os_hash_algo": "sha256",
        "image_os_hash_value": .string(String(repeating: "a", count: 64)),
    ]

    private static func settings(_ changes: JSONObject) -> JSONObject {
        var all = direct
        for member in changes.members { all[member.name] = member.value }
        return all
    }

    /// A machine with a Redfish controller, and an agent that the test plays.
    private struct Bench {
        let cloud: NodeFixture
        let stub: RedfishStub
        let agent: EmulatedAgent
        let id: String

        /// Requests work that waits for the agent, and lets the agent call.
        func begin(_ target: String, _ more: JSONObject = [:]) async throws {
            let answer = try await cloud.provision(id, target, more)
            #expect(answer.status == 202, "\(target): \(answer.json)")
            await cloud.work()
            try await agent.start(cloud, "addresses=" + AgentWorkTests.address)
        }

        /// Like `begin`, and goes on to the end of the work.
        func run(_ target: String, _ more: JSONObject = [:]) async throws {
            try await begin(target, more)
            try await cloud.settle()
        }

        var power: String { stub.machine.withLock { $0.power } }
        var media: [String: String] { stub.machine.withLock { $0.media } }
    }

    private static func with(_ body: (Bench) async throws -> Void) async throws {
        let (stub, agent) = (RedfishStub(), try EmulatedAgent())
        let server = try StubServer { stub.answer($0) }
        defer {
            server.stop()
            agent.stop()
        }
        try await NodeFixture.with { cloud in
            let info: JSONObject = [
                "redfish_address": .string(server.url), "redfish_username": .string(RedfishStub.user),
                "redfish_password": .string(RedfishStub.password),
            ]
            let node = settings([
                "driver": "redfish", "boot_interface": "redfish-virtual-media", "driver_info": .object(info),
                "properties": ["root_device": ["serial": "A1"]], "instance_info": .object(image),
            ])
            let id = try await cloud.enroll("machine", node)
            #expect(try await cloud.call("POST", "/v1/ports", ["node_uuid": .string(id), "address": .string(address)]).status == 201)
            #expect(try await cloud.provision(id, "manage").status == 202)
            try await cloud.settle()
            #expect(try await cloud.state(id) == "manageable")
            try await body(Bench(cloud: cloud, stub: stub, agent: agent, id: id))
        }
    }

    @Test func aMachineIsInspectedCleanedAndDeployed() async throws {
        try await AgentWorkTests.with { bench in
            #expect(try await bench.cloud.provision(bench.id, "inspect").status == 202)
            await bench.cloud.work()
            #expect(try await bench.cloud.state(bench.id) == "inspect wait")
            #expect(bench.power == "On" && bench.media == ["Cd": "http://images.example/ramdisk.iso"])
            #expect(bench.stub.machine.withLock { $0.boot["BootSourceOverrideTarget"] } == "Cd")
            try await bench.agent.start(bench.cloud, "addresses=" + AgentWorkTests.address)
            try await bench.cloud.settle()
            var node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "manageable", "\(node)")
            #expect(node["properties"]?["cpus"] == 16 && node["properties"]?["local_gb"] == 446, "\(node)")
            #expect(node["properties"]?["root_device"] == ["serial": "A1"])
            #expect(bench.power == "Off" && bench.media == [:])

            try await bench.run("provide")
            node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "available" && node["clean_step"] == [:] && node["power_state"] == "power off", "\(node)")
            let steps = bench.agent.state.withLock { state in
                state.given.filter { $0.name == "clean.execute_clean_step" }.map { $0.parameters["step"]?["step"]?.stringValue ?? "" }
            }
            #expect(steps == ["erase_devices_metadata", "erase_devices"])
            let cleaning = bench.agent.parameters("clean.execute_clean_step")
            #expect(cleaning["clean_version"] == ["generic": "1.2"] && cleaning["ports"] == [["address": .string(AgentWorkTests.address)]])

            let drive = Base64.encode([0x1f, 0x8b, 8, 0, 1, 2, 3])
            try await bench.run("active", ["configdrive": .string(drive)])
            node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "active" && node["power_state"] == "power on" && node["deploy_step"] == [:], "\(node)")
            let written = bench.agent.parameters("standby.prepare_image")
            #expect(written["configdrive"] == .string(drive))
            let info = written["image_info"]
            #expect(info?["os_hash_algo"] == "sha256" && info?["urls"] == ["https://images.example/debian.qcow2"], "\(written)")
            let hints = bench.agent.parameters("deploy.get_deploy_steps")["node"]?["properties"]?["root_device"]
            #expect(hints == ["serial": "A1"])
            #expect(bench.agent.names.suffix(3) == ["deploy.get_deploy_steps", "standby.prepare_image", "standby.sync"])
            #expect(bench.power == "On" && bench.media == [:])
            #expect(bench.stub.machine.withLock { $0.boot["BootSourceOverrideTarget"] } == "Hdd")

            try await bench.run("deleted")
            #expect(try await bench.cloud.state(bench.id) == "available")
            #expect(bench.power == "Off")
        }
    }

    @Test func stepsOfRequestsAreCheckedBeforeAnyRuns() async throws {
        try await AgentWorkTests.with { bench in
            func steps(_ names: [String], _ arguments: JSONObject = [:]) -> JSONObject {
                ["clean_steps": .array(names.map { ["interface": "deploy", "step": .string($0), "args": .object(arguments)] })]
            }
            try await bench.run("clean", steps(["erase_devices_metadata", "burnin_cpu"], ["n": 1]))
            #expect(try await bench.cloud.state(bench.id) == "manageable")
            #expect(bench.agent.parameters("clean.execute_clean_step")["step"]?["args"] == ["n": 1])
            let before = bench.agent.names.filter { $0 == "clean.execute_clean_step" }.count
            try await bench.run("clean", steps(["erase_devices_metadata", "melt"]))
            var node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "clean failed", "\(node)")
            #expect(node["last_error"]?.stringValue?.contains("has no step deploy.melt, only deploy.erase_devices") == true, "\(node)")
            #expect(bench.agent.names.filter { $0 == "clean.execute_clean_step" }.count == before)
            #expect(bench.power == "Off" && bench.media == [:])
            #expect(try await bench.cloud.provision(bench.id, "manage").status == 202)
            let restart: JSONObject = ["clean_steps": [["interface": "firmware", "step": "update"]]]
            try await bench.run("clean", restart)
            node = try await bench.cloud.node(bench.id)
            #expect(node["last_error"]?.stringValue?.contains("needs a restart of the machine") == true, "\(node)")
            #expect(try await bench.cloud.provision(bench.id, "manage").status == 202)
            for name in ["reboot", "power_off"] {
                #expect(try await bench.cloud.provision(bench.id, "clean", steps([name])).status == 400, "\(name)")
            }
        }
    }

    @Test func anAgentsFailureIsTheNodes() async throws {
        try await AgentWorkTests.with { bench in
            bench.agent.state.withLock { $0.failures = ["execute_clean_step": "The disk \u{1b}[31m/dev/sda refuses."] }
            try await bench.run("provide")
            var node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "clean failed" && node["maintenance"] == true && node["fault"] == "clean failure", "\(node)")
            let words = "The agent has failed at the step deploy.erase_devices_metadata: The disk  [31m/dev/sda refuses."
            #expect(node["last_error"]?.stringValue?.hasSuffix(words) == true, "\(node)")
            #expect(bench.power == "Off" && bench.media == [:])
            #expect(try await bench.cloud.call("DELETE", "/v1/nodes/\(bench.id)/maintenance").status == 202)
            #expect(try await bench.cloud.provision(bench.id, "manage").status == 202)
            bench.agent.state.withLock { state in
                state.failures = [:]
                state.steps = [["step": "burnin_cpu", "priority": 0, "interface": "deploy"]]
            }
            // A node is never offered when nothing was erased.
            try await bench.run("provide")
            node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "clean failed", "\(node)")
            #expect(node["last_error"]?.stringValue?.contains("nothing would be erased") == true, "\(node)")
        }
    }

    @Test("S24: an image that fails its checksum is not started")
    func s24WrongImagesAreNotStarted() async throws {
        try await AgentWorkTests.with { bench in
            try await bench.run("provide")
            bench.agent.state.withLock { $0.failures = ["prepare_image": "Image failed to verify against checksum."] }
            try await bench.run("active")
            let node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "deploy failed", "\(node)")
            #expect(node["last_error"]?.stringValue?.contains("Image failed to verify against checksum.") == true, "\(node)")
            #expect(bench.power == "Off" && bench.media == [:])
            #expect(bench.stub.machine.withLock { $0.boot["BootSourceOverrideTarget"] } != "Hdd")
        }
    }

    @Test func anAgentThatFallsSilentIsGivenUp() async throws {
        try await AgentWorkTests.with { bench in
            bench.agent.state.withLock { $0.looks = 100_000 }
            try await bench.begin("provide")
            await bench.cloud.work()
            #expect(try await bench.cloud.state(bench.id) == "cleaning")
            bench.agent.state.withLock { $0.isSilent = true }
            try await bench.cloud.settle()
            let node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "clean failed", "\(node)")
            #expect(node["last_error"]?.stringValue?.contains("The agent has been silent for") == true, "\(node)")
        }
    }

    /// A restarted machine's agent has no commands, and gets no token: somebody else could have started it.
    @Test func aMachineThatStartsAgainIsNoticed() async throws {
        try await AgentWorkTests.with { bench in
            bench.agent.state.withLock { $0.looks = 100_000 }
            try await bench.begin("provide")
            await bench.cloud.work()
            bench.agent.state.withLock { $0.commands = [] }
            try await bench.cloud.settle()
            let node = try await bench.cloud.node(bench.id)
            #expect(node["last_error"]?.stringValue?.contains("its machine has started again") == true, "\(node)")
        }
    }

    @Test func anAbortedCleaningSwitchesTheMachineOff() async throws {
        try await AgentWorkTests.with { bench in
            #expect(try await bench.cloud.provision(bench.id, "provide").status == 202)
            await bench.cloud.work()
            #expect(try await bench.cloud.provision(bench.id, "abort").status == 202)
            try await bench.cloud.settle()
            let node = try await bench.cloud.node(bench.id)
            #expect(node["provision_state"] == "clean failed" && node["reservation"] == .null, "\(node)")
            #expect(bench.power == "Off" && bench.media == [:])
            #expect(try await bench.agent.lookUp(bench.cloud, "node_uuid=\(bench.id)").status == 404)
        }
    }

    @Test func whatANodeLacksIsRefused() async throws {
        try await AgentWorkTests.with { bench in
            let cloud = bench.cloud
            try await bench.run("provide")
            let valid = try await cloud.call("GET", "/v1/nodes/\(bench.id)/validate").json
            #expect(valid["deploy"] == ["result": true] && valid["boot"] == ["result": true], "\(valid)")
            #expect(
                try await cloud.provision(
                    bench.id, "active",
                    [
                        "deploy_steps": [
                            ["interface": "deploy", "step": "deploy", "priority": 1]
                        ]
                    ]
                ).status == 400)
            #expect(try await cloud.patch(bench.id, "replace", "/properties/root_device", ["disk": "sda"]).status == 200)
            var answer = try await cloud.provision(bench.id, "active")
            #expect(answer.status == 400 && answer.fault.contains("no hint 'disk'"), "\(answer.json)")
            #expect(try await cloud.patch(bench.id, "remove", "/instance_info/image_os_hash_value").status == 200)
            answer = try await cloud.provision(bench.id, "active")
            #expect(answer.status == 400 && answer.fault.contains("image_os_hash_value"), "\(answer.json)")
            let problems = try await cloud.call("GET", "/v1/nodes/\(bench.id)/validate").json
            #expect(problems["deploy"]?["result"] == false, "\(problems)")
            #expect(try await cloud.patch(bench.id, "add", "/driver_info/deploy_iso", "ftp://h/i").status == 200)
            #expect(try await cloud.call("GET", "/v1/nodes/\(bench.id)/validate").json["boot"]?["result"] == false)
            let body: JSONObject = ["driver": "redfish", "deploy_interface": "direct"]
            answer = try await cloud.call("POST", "/v1/nodes", .object(body))
            #expect(answer.status == 400 && answer.fault.contains("boot_interface"), "\(answer.json)")
        }
    }

    // MARK: fake machines

    @Test func aFakeMachinesLifeWithItsAgent() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll(
                "one", AgentWorkTests.settings(["instance_info": .object(AgentWorkTests.image), "driver_info": ["fake_delay": 1]]))
            for (target, state) in [
                ("manage", "manageable"), ("inspect", "manageable"), ("provide", "available"), ("active", "active"), ("rebuild", "active"),
                ("deleted", "available"),
            ] {
                let answer = try await cloud.provision(id, target)
                #expect(answer.status == 202, "\(target): \(answer.json)")
                try await cloud.settle()
                let node = try await cloud.node(id)
                #expect(node["provision_state"] == .string(state), "\(target): \(node["last_error"] ?? .null)")
                if target == "deleted" { break }
                #expect(try await cloud.patch(id, "add", "/instance_info", .object(AgentWorkTests.image)).status == 200)
            }
        }
    }

    @Test(arguments: [
        ("agent", "provide", "clean failed", "has not called"), ("clean", "provide", "clean failed", "The agent has failed at the step"),
        ("management", "provide", "clean failed", "management"), ("power", "provide", "clean failed", "power"),
        ("image", "active", "deploy failed", "checksum"), ("agent", "active", "deploy failed", "did not ask for its node"),
        ("inspect", "inspect", "inspect failed", "its inventory"), ("agent", "inspect", "inspect failed", "has not called"),
    ]) func faultsOfFakeMachines(fault: String, target: String, state: String, words: String) async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll("one", AgentWorkTests.settings(["instance_info": .object(AgentWorkTests.image)]))
            for before in target == "active" ? ["manage", "provide"] : ["manage"] {
                #expect(try await cloud.provision(id, before).status == 202)
                try await cloud.settle()
            }
            #expect(try await cloud.patch(id, "add", "/driver_info/fake_failing", .string(fault)).status == 200)
            #expect(try await cloud.provision(id, target).status == 202)
            try await cloud.settle()
            let node = try await cloud.node(id)
            #expect(node["provision_state"] == .string(state), "\(node)")
            #expect(node["last_error"]?.stringValue?.contains(words) == true, "\(node["last_error"] ?? .null)")
            #expect(node["reservation"] == .null)
        }
    }

    // MARK: disturbed

    /// The event that starts a workflow, and the node's states after success and after failure.
    private static let cases: [(kind: String, before: [String], target: String, success: String, failure: String)] = [
        ("node_agent_inspect", ["manage"], "inspect", "manageable", "inspect failed"),
        ("node_agent_clean", ["manage"], "provide", "available", "clean failed"),
        ("node_agent_deploy", ["manage", "provide"], "active", "active", "deploy failed"),
        ("node_agent_undeploy", ["manage", "provide", "active"], "deleted", "available", "error|clean failed"),
    ]

    @Test(arguments: ["node_agent_inspect", "node_agent_clean", "node_agent_deploy", "node_agent_undeploy"])
    func agentWorkUnderEveryDisturbance(_ kind: String) async throws {
        try await NodeFixture.with { cloud in
            let item = try #require(AgentWorkTests.cases.first { $0.kind == kind })
            let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
            for (number, variant) in WorkflowChecks(definition).variants.enumerated() {
                let id = try await cloud.enroll("n\(number)", AgentWorkTests.settings(["instance_info": .object(AgentWorkTests.image)]))
                for target in item.before {
                    try await cloud.provision(id, target)
                    try await cloud.settle()
                }
                let answer = try await cloud.provision(id, item.target)
                #expect(answer.status == 202, "\(variant.name): \(answer.json)")
                try await cloud.settle([variant.definition])
                let node = try await cloud.node(id)
                let state = node["provision_state"]?.stringValue ?? ""
                // Nothing can fail after the last step has been recorded.
                let isPublished = state == item.success && variant.name.contains("after its effects")
                if variant.succeeds {
                    #expect(state == item.success, "\(variant.name): \(node["last_error"] ?? .null)")
                } else {
                    #expect(item.failure.split(separator: "|").contains(Substring(state)) || isPublished, "\(variant.name): \(state)")
                }
                #expect(node["reservation"] == .null, "\(variant.name)")
                let agents = try await cloud.database.read {
                    try $0.query("SELECT count(*) AS n FROM bare_metal_agents WHERE node_id = \(id)::uuid")[0].int("n")
                }
                #expect(agents == 0, "\(variant.name)")
            }
        }
    }
}
