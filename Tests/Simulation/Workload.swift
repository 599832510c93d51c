import JSON
import Kernel

/// A tenant's random actions on its own resources.
final class Workload: @unchecked Sendable {
    private struct Sent {
        let service: String
        let target: String
        let body: JSONValue
        let key: String
        let status: Int
        let json: JSONValue
    }

    private let world: World
    private let tenant: Tenant
    private let operators: Tenant
    private let history: History
    private let project: String
    private let network: String
    private let external: String
    private let number: Int
    private var names = 0
    private var sent: [Sent] = []

    private var random: SeededRandom { world.random }

    init(_ world: World, _ scene: Scene, _ history: History, project: String, number: Int) {
        self.world = world
        self.history = history
        self.project = project
        self.number = number
        tenant = Tenant(world: world, token: project, number: number)
        // Two projects use the same numbers, but their keys must differ.
        operators = Tenant(world: world, token: "admin", number: 100 * ((Scene.projects.firstIndex(of: project) ?? 0) + 1) + number)
        network = scene.networks[project] ?? ""
        external = scene.external
    }

    private func pick(_ kind: String) -> String? {
        let living = history.living(kind, project)
        return living.isEmpty ? nil : living[random.below(living.count)]
    }

    private func name() -> String {
        names += 1
        return "\(project)-\(number)-\(names)"
    }

    /// - Parameter operations: the number of actions.
    func run(operations: Int) async throws {
        for _ in 0..<operations {
            try await one()
            try await world.executor.sleep(world.between(.milliseconds(20), .seconds(4)))
        }
    }

    private func one() async throws {
        switch random.below(100) {
        case 0..<20: try await createServer()
        case 20..<32: try await remove("server")
        case 32..<44: try await act()
        case 44..<52: try await createVolume()
        case 52..<56: try await remove("volume")
        case 56..<63: try await attachVolume()
        case 63..<67: try await detachVolume()
        case 67..<71: try await createPort()
        case 71..<73: try await remove("port")
        case 73..<77: try await attachInterface()
        case 77..<80: try await detachInterface()
        case 80..<84: try await createFloatingIP()
        case 84..<88: try await associate()
        case 88..<90: try await remove("floatingip")
        case 90..<93: try await createGroup()
        case 93..<95: try await remove("security_group")
        default: try await replay()
        }
    }

    // MARK: requests

    private func post(_ service: String, _ target: String, _ body: JSONValue) async throws -> Tenant.Answer {
        let key = tenant.newKey()
        let answer = try await tenant.call(service, "POST", target, body, key: key)
        // A refusal is not stored, so a repetition is a new request.
        guard answer.isAccepted else { return answer }
        sent.append(Sent(service: service, target: target, body: body, key: key, status: answer.status, json: answer.json))
        return answer
    }

    /// Creates a resource; a refusal is not an error.
    private func create(_ service: String, _ path: String, _ kind: String, action: String, _ body: JSONObject, name: String) async throws {
        let answer = try await post(service, path, .object(JSONObject([(kind, .object(body))])))
        guard answer.isAccepted else { return refused(answer, "create \(kind)") }
        guard let id = answer.json[kind]?["id"]?.stringValue else {
            return world.violation("I1: \(answer.status) to a new \(kind) without an id: \(answer.json)")
        }
        history.recordCreated(kind, .init(project: project, service: service, path: path, name: name, id: id))
        history.accept(action, id)
        let seen = try await tenant.call(service, "GET", "\(path)/\(id)")
        if seen.status != 200, !history.doomed.contains(id) {
            world.violation("I14: \(kind) \(id) was created and is not seen: \(seen.status) \(seen.json)")
        }
    }

    private func refused(_ answer: Tenant.Answer, _ what: String) {
        world.count("refused \(answer.status)")
        // 501 names a limit of this cloud.
        guard ![400, 403, 404, 409, 413, 501].contains(answer.status) else { return }
        world.violation("\(what) is answered with \(answer.status): \(answer.json)")
    }

    private func change(
        _ service: String, _ method: String, _ target: String, _ body: JSONValue?, action: String, resource: String
    ) async throws -> Bool {
        let answer =
            method == "POST"
            ? try await post(service, target, body ?? .null) : try await tenant.call(service, method, target, body)
        guard answer.isAccepted else {
            refused(answer, "\(method) \(target)")
            return false
        }
        if !answer.wasGone { history.accept(action, resource) }
        return true
    }

    /// Repeats a request with the same key: the response must be the same, without a new effect.
    private func replay() async throws {
        guard !sent.isEmpty else { return }
        let old = sent[random.below(sent.count)]
        let answer = try await tenant.call(old.service, "POST", old.target, old.body, key: old.key)
        guard answer.status == old.status, answer.json == old.json else {
            return world.violation(
                "I10: POST \(old.target) under \(old.key) was \(old.status) \(old.json) and is now \(answer.status) \(answer.json)")
        }
        world.count("replayed")
    }

    // MARK: servers

    private func createServer() async throws {
        let name = name()
        var body: JSONObject = [
            "name": .string(name), "flavorRef": .string(["1", "1", "1", "2", "2", "3"][random.below(6)]),
            "networks": [["uuid": .string(network)]],
        ]
        if random.below(4) == 0, let port = pick("port") { body["networks"] = [["port": .string(port)]] }
        if random.below(5) == 0 {
            body["block_device_mapping_v2"] = [
                [
                    "boot_index": 0, "source_type": "image", "destination_type": "volume", "uuid": .string(Scene.image),
                    "volume_size": 1, "delete_on_termination": .bool(random.below(2) == 0),
                ]
            ]
        } else {
            body["imageRef"] = .string(Scene.image)
        }
        try await create(
            "compute", "/v2.1/servers", "server", action: "os_compute_api:servers:create", body, name: name)
    }

    private func remove(_ kind: String) async throws {
        guard let id = pick(kind), let resource = history.resources[kind]?[id] else { return }
        history.ask(toDelete: id)
        let answer = try await tenant.call(resource.service, "DELETE", "\(resource.path)/\(id)")
        guard answer.isAccepted else {
            if answer.status == 404, history.isAsked(once: id) {
                world.violation("I1: \(kind) \(id) was created and is not there to delete: \(answer.json)")
            }
            return refused(answer, "delete \(kind)")
        }
        history.deleting(kind, id)
    }

    private func act() async throws {
        guard let id = pick("server") else { return }
        // Servers that boot from volumes are not rebuilt.
        let seen = try await tenant.call("compute", "GET", "/v2.1/servers/\(id)")
        let isOnVolume = seen.json["server"]?["image"]?.objectValue == nil
        let choice = random.below(24)
        if choice >= 22 { return try await migrate(id) }
        if choice >= 18 { return try await migrateLive(id) }
        let (body, action): (JSONValue, String) =
            switch choice {
            case 0, 1: (["os-stop": .null], "os_compute_api:servers:stop")
            case 2, 3: (["os-start": .null], "os_compute_api:servers:start")
            case 4 where !isOnVolume: (["rebuild": ["imageRef": .string(Scene.image)]], "os_compute_api:servers:rebuild")
            case 5: (["rescue": .null], "os_compute_api:os-rescue")
            case 6: (["unrescue": .null], "os_compute_api:os-unrescue")
            case 7, 8: (["resize": ["flavorRef": .string(["1", "2", "3"][random.below(3)])]], "os_compute_api:servers:resize")
            case 9, 10: (["confirmResize": .null], "os_compute_api:servers:confirm_resize")
            case 11: (["revertResize": .null], "os_compute_api:servers:revert_resize")
            case 12: (["createImage": ["name": .string(name())]], "os_compute_api:servers:create_image")
            case 13:
                (
                    ["createBackup": ["name": .string(name()), "backup_type": "daily", "rotation": JSONValue(random.below(3))]],
                    "os_compute_api:os-create-backup"
                )
            case 14, 15: (["shelve": .null], "os_compute_api:os-shelve:shelve")
            case 16, 17: (["unshelve": .null], "os_compute_api:os-shelve:unshelve")
            default: (["reboot": ["type": "HARD"]], "os_compute_api:servers:reboot")
            }
        _ = try await change("compute", "POST", "/v2.1/servers/\(id)/action", body, action: action, resource: id)
    }

    private func migrateLive(_ id: String) async throws {
        let body: JSONValue = ["os-migrateLive": ["host": .null, "block_migration": "auto"]]
        let answer = try await operators.call("compute", "POST", "/v2.1/servers/\(id)/action", body, key: operators.newKey())
        guard answer.isAccepted else { return refused(answer, "live migration") }
        history.accept("os_compute_api:os-migrate-server:migrate_live", id)
        guard random.below(4) == 0 else { return }
        try await world.executor.sleep(world.between(.zero, .seconds(20)))
        let list = try await operators.call("compute", "GET", "/v2.1/servers/\(id)/migrations")
        guard let number = list.json["migrations"]?.arrayValue?.first?["id"]?.intValue else { return }
        let aborted = try await operators.call("compute", "DELETE", "/v2.1/servers/\(id)/migrations/\(number)")
        if !aborted.isAccepted { refused(aborted, "abort") } else { world.count("aborted") }
    }

    private func migrate(_ id: String) async throws {
        let answer = try await operators.call(
            "compute", "POST", "/v2.1/servers/\(id)/action", ["migrate": .null], key: operators.newKey())
        guard answer.isAccepted else { return refused(answer, "migrate") }
        if !answer.wasGone { history.accept("os_compute_api:os-migrate-server:migrate", id) }
    }

    // MARK: volumes

    private func createVolume() async throws {
        let name = name()
        var body: JSONObject = ["name": .string(name), "size": JSONValue(1 + random.below(3))]
        if random.below(3) == 0 { body["imageRef"] = .string(Scene.image) }
        try await create("block-storage", "/v3/\(project)/volumes", "volume", action: "volume:create", body, name: name)
    }

    private func attachVolume() async throws {
        guard let server = pick("server"), let volume = pick("volume") else { return }
        _ = try await change(
            "compute", "POST", "/v2.1/servers/\(server)/os-volume_attachments",
            ["volumeAttachment": ["volumeId": .string(volume)]], action: "os_compute_api:os-volumes-attachments:create",
            resource: server)
    }

    private func detachVolume() async throws {
        guard let server = pick("server") else { return }
        let list = try await tenant.call("compute", "GET", "/v2.1/servers/\(server)/os-volume_attachments")
        guard let volume = list.json["volumeAttachments"]?.arrayValue?.first?["volumeId"]?.stringValue else { return }
        _ = try await change(
            "compute", "DELETE", "/v2.1/servers/\(server)/os-volume_attachments/\(volume)", nil,
            action: "os_compute_api:os-volumes-attachments:delete", resource: server)
    }

    // MARK: networking

    private func createPort() async throws {
        let name = name()
        try await create(
            "network", "/v2.0/ports", "port", action: "create_port", ["network_id": .string(network), "name": .string(name)],
            name: name)
    }

    private func attachInterface() async throws {
        guard let server = pick("server") else { return }
        var ask: JSONObject = ["net_id": .string(network)]
        if random.below(2) == 0, let port = pick("port") { ask = ["port_id": .string(port)] }
        _ = try await change(
            "compute", "POST", "/v2.1/servers/\(server)/os-interface", ["interfaceAttachment": .object(ask)],
            action: "os_compute_api:os-attach-interfaces:create", resource: server)
    }

    private func detachInterface() async throws {
        guard let server = pick("server") else { return }
        let list = try await tenant.call("compute", "GET", "/v2.1/servers/\(server)/os-interface")
        let interfaces = list.json["interfaceAttachments"]?.arrayValue ?? []
        guard !interfaces.isEmpty, let port = interfaces[random.below(interfaces.count)]["port_id"]?.stringValue else { return }
        _ = try await change(
            "compute", "DELETE", "/v2.1/servers/\(server)/os-interface/\(port)", nil,
            action: "os_compute_api:os-attach-interfaces:delete", resource: server)
    }

    private func createFloatingIP() async throws {
        let name = name()
        try await create(
            "network", "/v2.0/floatingips", "floatingip", action: "create_floatingip",
            ["floating_network_id": .string(external), "description": .string(name)], name: name)
    }

    private func associate() async throws {
        guard let address = pick("floatingip") else { return }
        var port: JSONValue = .null
        if random.below(3) > 0, let server = pick("server") {
            let list = try await tenant.call("network", "GET", "/v2.0/ports?device_id=\(server)")
            port = list.json["ports"]?.arrayValue?.first?["id"] ?? .null
        }
        _ = try await change(
            "network", "PUT", "/v2.0/floatingips/\(address)", ["floatingip": ["port_id": port]],
            action: "update_floatingip", resource: address)
    }

    private func createGroup() async throws {
        let name = name()
        try await create(
            "network", "/v2.0/security-groups", "security_group", action: "create_security_group", ["name": .string(name)],
            name: name)
        guard let group = pick("security_group") else { return }
        let rule: JSONValue = [
            "security_group_rule": [
                "security_group_id": .string(group), "direction": "ingress", "protocol": "tcp",
                "port_range_min": JSONValue(1000 + random.below(1000)), "port_range_max": 4000,
            ]
        ]
        let answer = try await post("network", "/v2.0/security-group-rules", rule)
        if !answer.isAccepted { refused(answer, "create rule") }
        guard let port = pick("port") else { return }
        _ = try await change(
            "network", "PUT", "/v2.0/ports/\(port)", ["port": ["security_groups": [.string(group)]]], action: "update_port",
            resource: port)
    }
}
