import JSON
import Kernel
import Synchronization
import TestKit

/// A controller with one machine, as Redfish describes them, and its faults.
final class RedfishStub: Sendable {
    struct Machine {
        var power = "Off"
        var boot: JSONObject = ["BootSourceOverrideTarget": "None", "BootSourceOverrideEnabled": "Disabled"]
        var token = "t1"
        var sessions = 0
        var hasSessions = true
        var kinds = ["On", "ForceOff", "GracefulShutdown", "ForceRestart"]
        /// Answers of the next requests for the machine.
        var failures: [Int] = []
        /// How many readings of the power still show the old state.
        var delay = 0
        var pending: String?
        var etag: String?
        var systems = ["/redfish/v1/Systems/1"]
        var secureBoot: Bool? = false
        /// The images in the drives, by the drive's name.
        var media: [String: String] = [:]
        /// Whether drives have actions, or are changed by PATCH as older controllers want it.
        var hasMediaActions = true
        /// Whether the drives belong to the manager, as before Redfish 2020.4.
        var hasManagerMedia = false
        var bootModes = ["UEFI", "Legacy"]
    }

    let machine = Mutex(Machine())

    static let user = "admin"
    static let password = "s3cret:word"

    func answer(_ request: StubServer.Request) -> StubServer.Answer {
        machine.withLock { machine in
            let isBasic = request.headers["authorization"] == "Basic " + Base64.encode(Array("admin:s3cret:word".utf8))
            if request.path == "/redfish/v1/SessionService/Sessions" {
                guard machine.hasSessions else { return .empty(404) }
                guard request.json["UserName"] == .string(RedfishStub.user), request.json["Password"] == .string(RedfishStub.password)
                else {
                    return .json(401, ["error": ["message": "Wrong."]])
                }
                machine.sessions += 1
                machine.token = "t\(machine.sessions)"
                return .json(201, [:], headers: [("X-Auth-Token", machine.token), ("Location", "/redfish/v1/SessionService/Sessions/1")])
            }
            guard isBasic && !machine.hasSessions || request.headers["x-auth-token"] == machine.token else { return .json(401, [:]) }
            return RedfishStub.resource(request, &machine)
        }
    }

    private static func resource(_ request: StubServer.Request, _ machine: inout Machine) -> StubServer.Answer {
        if !machine.failures.isEmpty {
            return .json(
                machine.failures.removeFirst(),
                ["error": ["message": "x", "@Message.ExtendedInfo": [["Message": "The BMC\u{1b}[31m is busy."]]]])
        }
        switch request.line {
        case "GET /redfish/v1/": return .json(200, ["Systems": ["@odata.id": "/redfish/v1/Systems"]])
        case "GET /redfish/v1/Systems":
            return .json(200, ["Members": .array(machine.systems.map { ["@odata.id": .string($0)] })])
        case "GET /redfish/v1/Systems/1":
            if machine.delay > 0 {
                machine.delay -= 1
            } else if let pending = machine.pending {
                machine.power = pending
                machine.pending = nil
            }
            var boot = machine.boot
            boot["BootSourceOverrideMode@Redfish.AllowableValues"] = JSONValue(machine.bootModes)
            var links: JSONObject = [:]
            if machine.secureBoot != nil { links["SecureBoot"] = ["@odata.id": "/redfish/v1/Systems/1/SecureBoot"] }
            if !machine.hasManagerMedia { links["VirtualMedia"] = ["@odata.id": "/redfish/v1/Systems/1/VirtualMedia"] }
            let document: JSONObject = [
                "PowerState": .string(machine.power), "Boot": .object(boot), "Manufacturer": "ACME", "Model": "M1",
                "MemorySummary": ["TotalSystemMemoryGiB": 16], "ProcessorSummary": ["Count": 2, "LogicalProcessorCount": 8],
                "Processors": ["@odata.id": "/redfish/v1/Systems/1/Processors"],
                "SimpleStorage": ["@odata.id": "/redfish/v1/Systems/1/SimpleStorage"],
                "EthernetInterfaces": ["@odata.id": "/redfish/v1/Systems/1/EthernetInterfaces"],
                "Actions": [
                    "#ComputerSystem.Reset": [
                        "target": "/redfish/v1/Systems/1/Actions/ComputerSystem.Reset",
                        "ResetType@Redfish.AllowableValues": JSONValue(machine.kinds),
                    ]
                ],
                "Links": ["ManagedBy": [["@odata.id": "/redfish/v1/Managers/1"]]],
            ]
            let all = JSONObject(document.members.map { ($0.name, $0.value) } + links.members.map { ($0.name, $0.value) })
            return .json(200, .object(all), headers: [("ETag", "e1")])
        case "GET /redfish/v1/Managers/1":
            return .json(200, ["VirtualMedia": ["@odata.id": "/redfish/v1/Systems/1/VirtualMedia"]])
        case "PATCH /redfish/v1/Systems/1":
            if let etag = machine.etag, request.headers["if-match"] != etag { return .json(428, [:]) }
            for member in request.json["Boot"]?.objectValue?.members ?? [] { machine.boot[member.name] = member.value }
            return .empty(204)
        case "POST /redfish/v1/Systems/1/Actions/ComputerSystem.Reset":
            switch request.json["ResetType"]?.stringValue {
            case "On", "ForceRestart": machine.pending = "On"
            case "ForceOff", "GracefulShutdown": machine.pending = "Off"
            default: return .json(400, ["error": ["message": "No such reset."]])
            }
            return .empty(204)
        case "GET /redfish/v1/Systems/1/Processors": return members("Processors")
        case "GET /redfish/v1/Systems/1/Processors/1": return .json(200, ["ProcessorArchitecture": "x86", "InstructionSet": "x86-64"])
        case "GET /redfish/v1/Systems/1/SimpleStorage": return members("SimpleStorage")
        case "GET /redfish/v1/Systems/1/SimpleStorage/1":
            return .json(
                200, ["Devices": [["Name": "sda", "CapacityBytes": 21_474_836_480], ["Name": "usb", "CapacityBytes": 1_048_576]]])
        case "GET /redfish/v1/Systems/1/EthernetInterfaces": return members("EthernetInterfaces")
        case "GET /redfish/v1/Systems/1/EthernetInterfaces/1":
            return .json(200, ["Id": "e1", "MACAddress": "FA:16:3E:00:00:01", "LinkStatus": "LinkUp"])
        default: return firmware(request, &machine)
        }
    }

    /// Secure boot and the drives for virtual media.
    private static func firmware(_ request: StubServer.Request, _ machine: inout Machine) -> StubServer.Answer {
        let nothing = StubServer.Answer.json(404, ["error": ["message": .string("Nothing at \(request.line).")]])
        let (root, drives) = ("/redfish/v1/Systems/1", ["Cd": ["CD", "DVD"], "Usb": ["USBStick"], "Floppy": ["Floppy"]])
        if request.path == root + "/SecureBoot", let isOn = machine.secureBoot {
            if request.method == "PATCH" { machine.secureBoot = request.json["SecureBootEnable"]?.boolValue }
            return request.method == "PATCH" ? .empty(204) : .json(200, ["SecureBootEnable": .bool(isOn)])
        }
        guard request.path.hasPrefix(root + "/VirtualMedia") else { return nothing }
        let parts = request.path.dropFirst((root + "/VirtualMedia").count).split(separator: "/").map { String($0) }
        guard let name = parts.first else {
            return .json(
                200, ["Members": .array(drives.keys.sorted().map { ["@odata.id": .string(root + "/VirtualMedia/" + $0)] as JSONValue })])
        }
        guard let types = drives[name] else { return nothing }
        switch (request.method, parts.last) {
        case ("POST", "VirtualMedia.InsertMedia"?):
            guard machine.media[name] == nil else { return .json(400, ["error": ["message": "There is an image already."]]) }
            machine.media[name] = request.json["Image"]?.stringValue
            return .empty(204)
        case ("POST", "VirtualMedia.EjectMedia"?):
            machine.media[name] = nil
            return .empty(204)
        case ("PATCH", _):
            machine.media[name] = request.json["Image"]?.stringValue
            return .empty(204)
        default:
            var document: JSONObject = [
                "MediaTypes": JSONValue(types), "Image": JSONValue(machine.media[name] ?? ""),
                "Inserted": .bool(machine.media[name] != nil),
            ]
            let actions = root + "/VirtualMedia/" + name + "/Actions/VirtualMedia."
            if machine.hasMediaActions {
                document["Actions"] = [
                    "#VirtualMedia.InsertMedia": ["target": .string(actions + "InsertMedia")],
                    "#VirtualMedia.EjectMedia": ["target": .string(actions + "EjectMedia")],
                ]
            }
            return .json(200, .object(document))
        }
    }

    private static func members(_ name: String) -> StubServer.Answer {
        .json(200, ["Members": [["@odata.id": .string("/redfish/v1/Systems/1/\(name)/1")] as JSONValue]])
    }
}
