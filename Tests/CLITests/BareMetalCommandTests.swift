import JSON
import Kernel
import TestKit
import Testing

/// `osctl baremetal`, against a stub service.
@Suite struct BareMetalCommandTests {
    private static func node(_ state: String, _ changes: JSONObject = [:]) -> JSONValue {
        var node: JSONObject = [
            "uuid": "22222222-2222-4222-8222-222222222222", "name": "n1", "provision_state": .string(state), "power_state": "power off",
            "maintenance": false,
        ]
        for member in changes.members { node[member.name] = member.value }
        return .object(node)
    }

    @Test func aNodeIsEnrolledWithItsOptions() async throws {
        let tool = try CommandLineTool { _ in .json(201, BareMetalCommandTests.node("enroll")) }
        let result = try await tool.run(
            "baremetal node create n1 --driver redfish --driver-info redfish_address=https://10.0.0.7 --property cpus=8 --interface inspect=no-inspect --resource-class large -o json"
        )
        #expect(result.status == 0, "\(result)")
        let request = try #require(tool.server.requests.last)
        #expect(request.method == "POST" && request.path == "/baremetal/v1/nodes")
        #expect(request.headers["openstack-api-version"] == "baremetal 1.96")
        #expect(
            request.json == [
                "inspect_interface": "no-inspect", "resource_class": "large", "name": "n1", "driver": "redfish",
                "driver_info": ["redfish_address": "https://10.0.0.7"], "properties": ["cpus": 8],
            ])
    }

    @Test func changesArePatches() async throws {
        let tool = try CommandLineTool { _ in .json(200, BareMetalCommandTests.node("enroll")) }
        #expect(try await tool.run("baremetal node set n1 --extra a/b=x --no-automated-clean").status == 0)
        let request = try #require(tool.server.requests.last)
        #expect(request.method == "PATCH" && request.path == "/baremetal/v1/nodes/n1")
        #expect(
            request.json == [
                ["op": "add", "path": "/automated_clean", "value": false], ["op": "add", "path": "/extra/a~1b", "value": "x"],
            ])
        #expect(try await tool.run("baremetal node unset n1 --owner --property cpus").status == 0)
        #expect(
            tool.server.requests.last?.json == [["op": "remove", "path": "/owner"], ["op": "remove", "path": "/properties/cpus"]])
        #expect(try await tool.run("baremetal node unset n1").status == 1)
    }

    /// A node that cannot be verified goes back to `enroll`.
    @Test func waitingEndsWithTheReason() async throws {
        let tool = try CommandLineTool { request in
            request.method == "PUT"
                ? .empty(202) : .json(200, BareMetalCommandTests.node("enroll", ["last_error": "The controller is mute."]))
        }
        let result = try await tool.run("baremetal node manage n1 --wait")
        #expect(result.status == 1)
        #expect(tool.server.requests.first { $0.method == "PUT" }?.json == ["target": "manage"])
        #expect(
            result.errors.hasSuffix(
                "Error: The node n1 is now enroll: The controller is mute.\nSee: osctl baremetal node why n1\n"), "\(result.errors)")
    }

    @Test func powerIsWaitedFor() async throws {
        let tool = try CommandLineTool { request in
            request.method == "PUT" ? .empty(202) : .json(200, BareMetalCommandTests.node("manageable", ["power_state": "power on"]))
        }
        let result = try await tool.run("baremetal node power on n1 --wait")
        #expect(result.output == "The power state of node n1 is power on.\n", "\(result)")
        #expect(tool.server.requests.first { $0.method == "PUT" }?.path == "/baremetal/v1/nodes/n1/states/power")
        let failing = try CommandLineTool { request in
            request.method == "PUT" ? .empty(202) : .json(200, BareMetalCommandTests.node("manageable", ["last_error": "It is stuck."]))
        }
        let failed = try await failing.run("baremetal node power on n1 --wait")
        #expect(failed.status == 1 && failed.errors.contains("The node n1 is power off: It is stuck."), "\(failed)")
    }

    @Test func bootModesAndMediaAreChanged() async throws {
        let tool = try CommandLineTool { request in
            request.method == "GET"
                ? .json(200, [["media_types": ["CD"], "inserted": true, "image": "http://h/i"]])
                : .empty(request.method == "PUT" ? 202 : 204)
        }
        let calls: [(line: String, request: String, body: JSONValue)] = [
            ("boot-mode set n1 bios", "PUT /baremetal/v1/nodes/n1/states/boot_mode", ["target": "bios"]),
            ("secure-boot on n1", "PUT /baremetal/v1/nodes/n1/states/secure_boot", ["target": true]),
            ("secure-boot off n1", "PUT /baremetal/v1/nodes/n1/states/secure_boot", ["target": false]),
            ("media insert n1 http://h/i", "POST /baremetal/v1/nodes/n1/vmedia", ["device_type": "cdrom", "image_url": "http://h/i"]),
            ("media eject n1", "DELETE /baremetal/v1/nodes/n1/vmedia", .null),
            ("media eject n1 --device cdrom --device disk", "DELETE /baremetal/v1/nodes/n1/vmedia?device_types=cdrom%2Cdisk", .null),
        ]
        for (line, request, body) in calls {
            let result = try await tool.run("baremetal node \(line)")
            #expect(result.status == 0, "\(line): \(result)")
            let sent = try #require(tool.server.requests.last)
            #expect(sent.line == request && sent.json == body, "\(line): \(sent.line) \(sent.json)")
        }
        let list = try await tool.run("baremetal node media list n1 -o json")
        #expect(list.output.contains("http://h/i"), "\(list)")
    }

    @Test func whyTellsTheStory() async throws {
        let tool = try CommandLineTool { request in
            request.path.hasSuffix("/history")
                ? .json(
                    200,
                    ["history": [["created_at": "2026-01-01T00:00:00+00:00", "severity": "ERROR", "event": "Cleaning has failed."]]])
                : .json(
                    200,
                    BareMetalCommandTests.node(
                        "clean failed",
                        [
                            "last_error": "The disk is full.", "maintenance": true, "maintenance_reason": "cleaning",
                            "target_provision_state": "available",
                        ]))
        }
        let why = try await tool.run("baremetal node why n1")
        #expect(
            why.output == """
                Node n1 is clean failed, on the way to available.
                Its power state is power off.
                It is in maintenance: cleaning
                The last error: The disk is full.

                History:
                ! 2026-01-01T00:00:00  Cleaning has failed.

                Possible next actions:
                  osctl baremetal node manage n1

                """, "\(why)")
    }

    @Test(arguments: [
        ("baremetal node create n1", "Missing expected argument '--driver <driver>'"),
        ("baremetal allocation create a", "An allocation needs --resource-class or --node."),
    ]) func argumentErrorsComeBeforeAnyRequest(line: String, message: String) async throws {
        let tool = try CommandLineTool { _ in .empty(500) }
        let result = try await tool.run(line)
        #expect(result.status == 64 && result.errors.hasPrefix("Error: \(message)"), "\(result.errors)")
        #expect(tool.server.lines.isEmpty)
    }
}
