import ComputeCore
import Contracts
import Database
import Foundation
import JSON
import Kernel
import TestKit
import Testing

/// State tables, requests and documents: pure functions.
@Suite struct ComputeCoreTests {
    @Test func theTableOfStatesIsTheConstraint() async throws {
        let definition = try await TestDatabase.with { test in
            try await test.database.read {
                try $0.query("SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conname = 'servers_state'")[0].string(
                    "text")
            }
        }
        for (state, tasks) in ServerStates.tasks {
            #expect(definition.contains("'\(state.rawValue)'"), "\(state)")
            for task in tasks { #expect(definition.contains("'\(task.rawValue)'"), "\(state) \(task)") }
        }
        // PostgreSQL accepts exactly the pairs in the table.
        try await TestDatabase.with { test in
            try await test.database.write { connection in
                for (state, tasks) in ServerStates.tasks {
                    for task in TaskState.allCases {
                        let fits = try connection.query(
                            """
                            SELECT (\(raw: ServerStates.check)) AS fits FROM (SELECT \(state.rawValue)::text AS vm_state,
                                \(task.rawValue)::text AS task_state) s
                            """)[0].bool("fits")
                        #expect(fits == tasks.contains(task), "\(state) \(task)")
                    }
                }
            }
        }
    }

    @Test func everyActionLeadsSomewhereThatTheTableAllows() {
        for action in PowerAction.allCases {
            for state in action.from {
                let tasks = ServerStates.tasks.first { $0.state == state }?.tasks ?? []
                #expect(tasks.contains(action.task), "\(action) from \(state)")
            }
            #expect(action.to.restingPower == action.power)
        }
        for change in ServerChange.allCases {
            for state in change.from {
                let tasks = ServerStates.tasks.first { $0.state == state }?.tasks ?? []
                #expect(change.task.map { tasks.contains($0) } ?? true, "\(change) from \(state)")
            }
        }
    }

    @Test func theDocumentationHasTheDiagram() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
            .deletingLastPathComponent().appendingPathComponent("docs/compute.md")
        let text = try String(contentsOf: path, encoding: .utf8)
        #expect(text.contains("```mermaid\n\(ServerStates.diagram)\n```"), "docs/compute.md needs:\n\(ServerStates.diagram)")
    }

    @Test func observationsAreJudged() {
        func judge(_ state: VMState, _ task: TaskState?, _ power: DesiredPower, _ observation: Observation, operation: String? = nil)
            -> ObservationOutcome
        {
            ObservedServer(vmState: state, task: task, desiredPower: power, generation: 5, operationID: operation).judge(observation)
        }
        let running = Observation(generation: 5, power: .running, applied: true)
        let off = Observation(generation: 5, power: .shutoff, applied: true)
        #expect(judge(.active, nil, .running, running) == .noted)
        #expect(judge(.active, nil, .running, off) == .stoppedItself)
        #expect(judge(.resized, nil, .running, off) == .turnedOff)
        #expect(judge(.rescued, nil, .running, off) == .turnedOff)
        #expect(judge(.active, .rebuilding, .running, off, operation: "a") == .noted)
        #expect(judge(.active, nil, .running, Observation(generation: 5, power: .crashed, applied: true)) == .stoppedItself)
        #expect(judge(.active, nil, .running, Observation(generation: 4, power: .shutoff, applied: true)) == .noted)
        #expect(judge(.active, .poweringOff, .shutoff, off) == .finished(.stopped))
        #expect(judge(.active, .poweringOff, .shutoff, running) == .noted)
        #expect(judge(.stopped, .poweringOn, .running, off) == .stoppedItself)
        #expect(judge(.active, .rebooting, .running, off, operation: "a") == .noted)
        #expect(judge(.active, .deleting, .absent, off) == .noted)
        #expect(judge(.building, .spawning, .running, running) == .noted)
        #expect(judge(.active, .rebooting, .running, running, operation: "a") == .noted)
        var done = running
        done.operationID = "a"
        #expect(judge(.active, .rebooting, .running, done, operation: "a") == .finished(.active))
        let failed = Observation(generation: 5, power: .shutoff, applied: false, permanent: true, error: "no")
        #expect(judge(.stopped, .poweringOn, .running, failed) == .failed(.stopped, "no"))
        #expect(judge(.stopped, .poweringOn, .running, Observation(generation: 5, power: .shutoff, applied: false)) == .noted)
    }

    @Test func requestsAreBroughtIntoOneForm() throws {
        let image = "22222222-2222-4222-8222-222222222222"
        func request(_ server: JSONObject) throws -> ServerRequest {
            var all: JSONObject = ["name": "web", "flavorRef": 1, "networks": "none"]
            for member in server.members { all[member.name] = member.value }
            return try ServerRequest(["server": .object(all)], networksRequired: true)
        }
        #expect(try request(["imageRef": .string(image)]).name == "web")
        #expect(try request(["imageRef": .string("http://image.example/images/" + image)]).imageID == image)
        let boot: JSONValue = ["uuid": .string(image), "source_type": "image", "destination_type": "local", "boot_index": 0]
        let mapped = try request(["imageRef": "", "block_device_mapping_v2": [boot]])
        #expect(mapped.imageID == image && mapped.devices.isEmpty)
        let volume: JSONValue = [
            "uuid": .string(image), "source_type": "image", "destination_type": "volume", "boot_index": 0, "volume_size": 2,
        ]
        #expect(try request(["block_device_mapping_v2": [volume]]).imageID == nil)
        #expect(throws: ResourceError.self) { try request([:]) }
        #expect(throws: ResourceError.self) { try request(["imageRef": .string(image), "accessIPv4": "1.1.1.1.1.1"]) }
        #expect(throws: ResourceError.self) { try request(["imageRef": .string(image), "accessIPv6": "notvalid"]) }
        #expect(throws: ResourceError.self) { try request(["block_device_mapping_v2": [boot, boot]]) }
        #expect(throws: ResourceError.self) { try request(["imageRef": .string(image), "availability_zone": "a:b:c:d"]) }
        #expect(try request(["imageRef": .string(image), "availability_zone": "a:b"]).zone.target == "b")
        #expect(try request(["imageRef": .string(image), "availability_zone": "a::n"]).zone.target == "n")
        #expect(try request(["imageRef": .string(image), "networks": "auto"]).networks == .automatic(required: true))
        #expect(
            try request(["imageRef": .string(image), "networks": [["uuid": .string(image)]]]).networks
                == .interfaces([InterfaceRequest(networkID: image)]))
    }

    @Test func hostNamesAndDevices() {
        #expect(HostName.sanitized("My Web_Server.1", fallback: "x") == "my-web-server-1")
        #expect(HostName.sanitized("服务器", fallback: "server-1") == "server-1")
        #expect(HostName.sanitized("--a--", fallback: "x") == "a")
        #expect(HostName.sanitized(String(repeating: "a", count: 70), fallback: "x").count == 63)
        #expect(DeviceNames.free(taken: ["/dev/vda", "/dev/vdb"]) == "/dev/vdc")
        #expect(DeviceNames.free(taken: Set("abcdefghijklmnopqrstuvw".map { "/dev/vd\($0)" })) == nil)
    }

    @Test func keysAreReadAndWritten() throws {
        let blob = SSHFormat.ed25519Blob(publicKey: Array(repeating: 7, count: 32))
        let text = "ssh-ed25519 \(Base64.encode(blob)) me"
        #expect(try SSHPublicKey(text).blob == blob)
        for bad in ["", "ssh-ed25519", "ssh-ed25519 %%%", "ssh-rsa \(Base64.encode(blob))", "\(text)\n\(text)", "none AAAA"] {
            #expect(throws: ResourceError.self) { try SSHPublicKey(bad) }
        }
        for count in 0..<10 {
            let bytes = Array(repeating: UInt8(200), count: count)
            #expect(Base64.decode(Base64.encode(bytes)) == bytes)
        }
        #expect(Base64.decode("A") == nil)
    }

    @Test func schedulingFaultsNameNoHost() {
        let (message, details) = SchedulingFault.texts(
            SchedulingAnswer(
                .rejected, message: "No valid host was found.",
                filters: [
                    .init(name: "ComputeFilter", hostsBefore: 2, hostsAfter: 2, reasons: [:]),
                    .init(name: "ResourceFilter", hostsBefore: 2, hostsAfter: 0, reasons: ["not enough VCPU": 2]),
                ],
                refusals: [.init(host: "h1", filter: "ResourceFilter", reason: "not enough VCPU")]))
        #expect(message == "No valid host was found. ResourceFilter removed 2 of 2 hosts (not enough VCPU: 2).")
        #expect(details == "h1: ResourceFilter (not enough VCPU)")
    }
}
