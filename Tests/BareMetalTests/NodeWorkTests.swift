import BareMetalCore
import BareMetalService
import Database
import JSON
import Kernel
import ServiceKit
import TestKit
import Testing
import WebAPI
import Workflow

/// The workflows of nodes: verify, inspect, clean, deploy, undeploy, rescue, power.
@Suite struct NodeWorkTests {
    @Test func aNodesLife() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll("one")
            #expect(try await cloud.provision(id, "provide").status == 400)
            #expect(try await cloud.provision(id, "manage").status == 202)
            #expect(try await cloud.state(id) == "verifying")
            // Work in progress reserves the node.
            #expect(try await cloud.node(id)["reservation"] == "wolke-bare-metal")
            #expect(try await cloud.provision(id, "inspect").status == 409)
            #expect(try await cloud.patch(id, "add", "/extra/k", 1).status == 409)
            #expect(try await cloud.call("DELETE", "/v1/nodes/\(id)").status == 409)
            try await cloud.settle()
            #expect(try await cloud.state(id) == "manageable")
            #expect(try await cloud.node(id)["power_state"] == "power off")
            #expect(try await cloud.provision(id, "inspect").status == 202)
            try await cloud.settle()
            let inspected = try await cloud.node(id)
            #expect(inspected["properties"]?["cpus"] == 4 && inspected["inspection_finished_at"] != .null)
            #expect(try await cloud.provision(id, "provide").status == 202)
            try await cloud.settle()
            #expect(try await cloud.state(id) == "available")
            #expect(try await cloud.provision(id, "active").status == 202)
            #expect(try await cloud.node(id)["target_provision_state"] == "active")
            try await cloud.settle()
            let active = try await cloud.node(id)
            #expect(
                active["provision_state"] == "active" && active["power_state"] == "power on" && active["target_provision_state"] == .null)
            #expect(try await cloud.patch(id, "add", "/protected", true).status == 200)
            #expect(try await cloud.provision(id, "deleted").status == 403)
            #expect(try await cloud.provision(id, "rebuild").status == 403)
            #expect(try await cloud.patch(id, "add", "/protected", false).status == 200)
            #expect(try await cloud.provision(id, "rescue").status == 400)
            #expect(try await cloud.provision(id, "rescue", ["rescue_password": "secret"]).status == 202)
            try await cloud.settle()
            #expect(try await cloud.state(id) == "rescue")
            #expect(try await cloud.provision(id, "unrescue").status == 202)
            try await cloud.settle()
            #expect(try await cloud.provision(id, "rebuild").status == 202)
            try await cloud.settle()
            #expect(try await cloud.state(id) == "active")
            #expect(try await cloud.provision(id, "deleted").status == 202)
            try await cloud.settle()
            let back = try await cloud.node(id)
            #expect(back["provision_state"] == "available" && back["power_state"] == "power off" && back["clean_step"] == [:])
            #expect(try await cloud.call("DELETE", "/v1/nodes/\(id)").status == 204)
        }
    }

    @Test func failuresSayWhyAndWhatIsNext() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll("one", ["driver_info": ["fake_failing": "power", "fake_failure": "The BMC is on fire."]])
            try await cloud.provision(id, "manage")
            try await cloud.settle()
            var node = try await cloud.node(id)
            #expect(
                node["provision_state"] == "enroll" && node["last_error"]?.stringValue?.contains("The BMC is on fire.") == true, "\(node)")
            #expect(try await cloud.patch(id, "replace", "/driver_info", ["fake_failing": ["clean"]]).status == 200)
            try await cloud.provision(id, "manage")
            try await cloud.settle()
            #expect(try await cloud.node(id)["last_error"] == .null)
            try await cloud.provision(id, "provide")
            try await cloud.settle()
            node = try await cloud.node(id)
            #expect(node["provision_state"] == "clean failed" && node["maintenance"] == true && node["fault"] == "clean failure")
            #expect(try await cloud.provision(id, "provide").status == 400)
            #expect(try await cloud.call("DELETE", "/v1/nodes/\(id)/maintenance").status == 202)
            #expect(try await cloud.node(id)["fault"] == .null)
            #expect(try await cloud.patch(id, "replace", "/driver_info", ["fake_failing": "deploy"]).status == 200)
            for target in ["manage", "provide", "active"] {
                #expect(try await cloud.provision(id, target).status == 202, "\(target)")
                try await cloud.settle()
            }
            node = try await cloud.node(id)
            #expect(node["provision_state"] == "deploy failed" && node["last_error"]?.stringValue?.contains("deploy") == true)
            try await cloud.provision(id, "deleted")
            try await cloud.settle()
            #expect(try await cloud.state(id) == "available")
            let history = try await cloud.call("GET", "/v1/nodes/\(id)/history")
            let errors = (history.json["history"]?.arrayValue ?? []).filter { $0["severity"] == "ERROR" }
            #expect(errors.count == 3, "\(history.json)")
        }
    }

    @Test func stepsAndHolds() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll("one")
            try await cloud.provision(id, "manage")
            try await cloud.settle()
            #expect(try await cloud.provision(id, "clean").status == 400)
            let unknown: JSONObject = ["clean_steps": [["interface": "deploy", "step": "melt"]]]
            #expect(try await cloud.provision(id, "clean", unknown).status == 400)
            #expect(
                try await cloud.provision(id, "provide", ["clean_steps": [["interface": "deploy", "step": "erase_devices"]]]).status == 400)
            let steps: JSONObject = [
                "clean_steps": [
                    ["interface": "deploy", "step": "erase_devices"], ["interface": "deploy", "step": "hold"],
                    ["interface": "management", "step": "update_firmware"],
                ]
            ]
            #expect(try await cloud.provision(id, "clean", steps).status == 202)
            await cloud.work()
            var node = try await cloud.node(id)
            #expect(node["provision_state"] == "clean hold" && node["target_provision_state"] == "manageable", "\(node)")
            #expect(node["clean_step"]?["step"] == "hold")
            #expect(try await cloud.provision(id, "unhold").status == 202)
            try await cloud.settle()
            #expect(try await cloud.state(id) == "manageable")
            #expect(try await cloud.provision(id, "clean", steps).status == 202)
            await cloud.work()
            #expect(try await cloud.provision(id, "abort").status == 202)
            try await cloud.settle()
            node = try await cloud.node(id)
            #expect(node["provision_state"] == "clean failed" && node["reservation"] == .null, "\(node)")
        }
    }

    @Test func power() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            func set(_ target: String, version: String = "1.96") async throws -> Int {
                try await cloud.call("PUT", "/v1/nodes/\(id)/states/power", ["target": .string(target)], version: version).status
            }
            #expect(try await set("power on") == 202)
            #expect(try await cloud.node(id)["target_power_state"] == "power on")
            #expect(try await set("power off") == 409)
            try await cloud.settle()
            #expect(try await cloud.node(id)["power_state"] == "power on")
            #expect(try await set("soft power off", version: "1.26") == 406)
            #expect(try await set("soft power off") == 202)
            try await cloud.settle()
            #expect(try await cloud.node(id)["power_state"] == "power off")
            #expect(try await set("nonsense") == 400)
            #expect(try await cloud.patch(id, "add", "/disable_power_off", true).status == 200)
            #expect(try await set("power off") == 400)
            #expect(try await cloud.patch(id, "replace", "/driver_info", ["fake_failing": "power"]).status == 200)
            #expect(try await set("power on") == 202)
            try await cloud.settle()
            let node = try await cloud.node(id)
            #expect(node["power_state"] == "power off" && node["target_power_state"] == .null)
            #expect(node["last_error"]?.stringValue?.contains("power on") == true)
        }
    }

    @Test func bootDevicesAndValidation() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            let path = "/v1/nodes/\(id)/management/boot_device"
            #expect(try await cloud.call("GET", path).json == ["boot_device": "disk", "persistent": true])
            #expect(try await cloud.call("PUT", path, ["boot_device": "pxe"]).status == 204)
            #expect(try await cloud.call("GET", path).json == ["boot_device": "pxe", "persistent": false])
            #expect(try await cloud.call("PUT", path, ["boot_device": "floppy"]).status == 400)
            #expect(try await cloud.call("PUT", path, ["boot_device": "tape"]).status == 400)
            #expect(try await cloud.call("GET", path + "/supported").json["supported_boot_devices"]?.arrayValue?.contains("cdrom") == true)
            let valid = try await cloud.call("GET", "/v1/nodes/\(id)/validate")
            #expect(valid.json["power"] == ["result": true] && valid.json["bios"]?["result"] == .null, "\(valid.json)")
            #expect(try await cloud.patch(id, "replace", "/driver_info", ["fake_delay": "long"]).status == 200)
            #expect(try await cloud.call("GET", "/v1/nodes/\(id)/validate").json["power"]?["result"] == false)
            #expect(try await cloud.patch(id, "replace", "/driver_info", ["fake_failing": "management"]).status == 200)
            #expect(try await cloud.call("GET", path).status == 503)
        }
    }

    @Test func thePowerThatSomebodySwitchesIsFollowed() async throws {
        try await NodeFixture.with { cloud in
            let id = try await cloud.available("one")
            try await cloud.database.write {
                try $0.execute("UPDATE bare_metal_fake_machines SET is_on = true WHERE node_id = \(id)::uuid")
                try $0.execute("INSERT INTO bare_metal_fake_machines (node_id, is_on) VALUES (\(id)::uuid, true) ON CONFLICT DO NOTHING")
            }
            try await cloud.pollPower()
            #expect(try await cloud.node(id)["power_state"] == "power on")
            let history = try await cloud.call("GET", "/v1/nodes/\(id)/history")
            #expect(
                history.json["history"]?.arrayValue?.last?["event"]?.stringValue?.contains("outside of this cloud") == true,
                "\(history.json)")
        }
    }

    // MARK: disturbed

    @Test func everyWorkflowIsDisturbed() async throws {
        try await NodeFixture.with { cloud in
            let missing = try DisturbanceTests.missing(cloud.module.workflows.map(\.kind), file: #filePath)
            #expect(missing == [])
        }
    }

    @Test func whatIsStoredIsWhatReleasesHaveStored() async throws {
        try await NodeFixture.with { cloud in
            let differences = try WorkflowRecords.differences(cloud.module.workflows, file: "bare-metal-workflows.json")
            #expect(differences == [])
        }
    }

    /// The event that starts a workflow, and the node's states after success and after failure.
    private static let cases: [(kind: String, before: [String], target: String, more: JSONObject, success: String, failure: String)] = [
        ("node_verify", [], "manage", [:], "manageable", "enroll"),
        ("node_inspect", ["manage"], "inspect", [:], "manageable", "inspect failed"),
        ("node_clean", ["manage"], "provide", [:], "available", "clean failed"),
        ("node_adopt", ["manage"], "adopt", [:], "active", "adopt failed"),
        ("node_deploy", ["manage", "provide"], "active", [:], "active", "deploy failed"),
        ("node_undeploy", ["manage", "provide", "active"], "deleted", [:], "available", "error|clean failed"),
        ("node_rescue", ["manage", "provide", "active"], "rescue", ["rescue_password": "x"], "rescue", "rescue failed"),
        (
            "node_service", ["manage", "provide", "active"], "service",
            ["service_steps": [["interface": "management", "step": "update_firmware"]]],
            "active", "service failed"
        ),
    ]

    @Test(arguments: [
        "node_verify", "node_inspect", "node_clean", "node_adopt", "node_deploy", "node_undeploy", "node_rescue", "node_service",
    ])
    func workUnderEveryDisturbance(_ kind: String) async throws {
        try await NodeFixture.with { cloud in
            let item = try #require(NodeWorkTests.cases.first { $0.kind == kind })
            let definition = try #require(cloud.module.workflows.first { $0.kind == kind })
            for (number, variant) in WorkflowChecks(definition).variants.enumerated() {
                let id = try await cloud.enroll("n\(number)")
                for target in item.before {
                    try await cloud.provision(id, target)
                    try await cloud.settle()
                }
                let answer = try await cloud.provision(id, item.target, item.more)
                #expect(answer.status == 202, "\(variant.name): \(answer.json)")
                try await cloud.settle([variant.definition])
                let state = try await cloud.state(id) ?? ""
                // Nothing can fail after the last step has been recorded.
                let isPublished = state == item.success && variant.name.contains("after its effects")
                if variant.succeeds {
                    #expect(state == item.success, "\(variant.name)")
                } else {
                    #expect(item.failure.split(separator: "|").contains(Substring(state)) || isPublished, "\(variant.name): \(state)")
                    if !isPublished {
                        #expect(try await cloud.node(id)["last_error"]?.stringValue?.contains("made to fail") == true, "\(variant.name)")
                    }
                }
                #expect(try await cloud.node(id)["reservation"] == .null, "\(variant.name)")
            }
        }
    }

    @Test func unrescueUnderEveryDisturbance() async throws {
        try await NodeFixture.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "node_unrescue" })
            for (number, variant) in WorkflowChecks(definition).variants.enumerated() {
                let id = try await cloud.available("n\(number)")
                try await cloud.provision(id, "active")
                try await cloud.settle()
                try await cloud.provision(id, "rescue", ["rescue_password": "x"])
                try await cloud.settle()
                #expect(try await cloud.provision(id, "unrescue").status == 202, "\(variant.name)")
                try await cloud.settle([variant.definition])
                let state = try await cloud.state(id)
                #expect(state == (variant.succeeds ? "active" : "unrescue failed"), "\(variant.name)")
            }
        }
    }

    @Test func powerUnderEveryDisturbance() async throws {
        try await NodeFixture.with { cloud in
            let definition = try #require(cloud.module.workflows.first { $0.kind == "node_power" })
            for (number, variant) in WorkflowChecks(definition).variants.enumerated() {
                let id = try await cloud.available("n\(number)")
                #expect(
                    try await cloud.call("PUT", "/v1/nodes/\(id)/states/power", ["target": "power on"]).status == 202, "\(variant.name)")
                try await cloud.settle([variant.definition])
                let node = try await cloud.node(id)
                #expect(node["target_power_state"] == .null, "\(variant.name)")
                if variant.succeeds { #expect(node["power_state"] == "power on", "\(variant.name)") }
            }
        }
    }
}
