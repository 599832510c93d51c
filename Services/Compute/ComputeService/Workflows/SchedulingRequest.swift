import Database
import JSON
import Kernel

/// The question to the scheduler, from a server's row.
enum SchedulingRequest {
    static func load(_ connection: Connection, server: String, operation: String) throws -> JSONValue? {
        let rows = try connection.query(
            """
            SELECT s.project_id, s.user_id, s.flavor, s.image, s.image_properties, s.pinned_zone, s.requested_host, s.scheduler_hints,
                s.group_id, g.policy, g.rules,
                (SELECT json_agg(m.id) FROM servers m WHERE m.group_id = s.group_id AND NOT m.deleted AND m.id <> s.id)
                    AS members
            FROM servers s LEFT JOIN server_groups g ON g.id = s.group_id WHERE s.id = \(server) AND NOT s.deleted
            """)
        guard let row = rows.first else { return nil }
        let flavor = try row.json("flavor")
        let image = try row.optionalJSON("image") ?? .null
        let properties = try row.object("image_properties")
        let hints = try row.object("scheduler_hints")
        var group = JSONValue.null
        if let id = try row.optionalString("group_id"), let policy = try row.optionalString("policy") {
            group = [
                "id": .string(id), "policy": .string(policy), "rules": try row.optionalJSON("rules") ?? [:],
                "members": JSONValue(try row.strings("members")),
            ]
        }
        var members: JSONObject = [
            "operation_id": .string(operation), "consumer_id": .string(server),
            "project_id": .string(try row.string("project_id")), "user_id": .string(try row.string("user_id")),
            "availability_zone": JSONValue(try row.optionalString("pinned_zone")),
            "host": JSONValue(try row.optionalString("requested_host")), "aggregate_metadata": [:],
            "image_properties": .object(properties), "group": group,
            "same_host": list(hints["same_host"]), "different_host": list(hints["different_host"]),
            "exclude_hosts": [], "dry_run": false,
        ]
        for member in needs(flavor, image, properties).members { members[member.name] = member.value }
        return .object(members)
    }

    /// What a flavor asks, with what the image adds to it.
    ///
    /// - Parameter image: the one on the local disk; null where the server boots from a volume.
    static func needs(_ flavor: JSONValue, _ image: JSONValue, _ properties: JSONObject) -> JSONObject {
        let specs = flavor["extra_specs"]?.objectValue ?? [:]
        return [
            "resources": .object(resources(flavor, specs, image)),
            "required_traits": JSONValue(traits("required", specs, properties)),
            "forbidden_traits": JSONValue(traits("forbidden", specs, properties)), "flavor_extra_specs": .object(specs),
        ]
    }

    private static func list(_ value: JSONValue?) -> JSONValue {
        switch value {
        case .array(let list)?: .array(list)
        case .string(let text)?: [.string(text)]
        default: []
        }
    }

    /// `trait:X=required` of the flavor and the image.
    private static func traits(_ word: String, _ objects: JSONObject...) -> [String] {
        var names: [String] = []
        for member in objects.flatMap(\.members) where member.name.hasPrefix("trait:") && member.value.stringValue == word {
            names.append(String(member.name.dropFirst(6)))
        }
        return Set(names).sorted()
    }

    /// The flavor's amounts; `resources:CLASS` in its extra specs replaces or adds to them.
    private static func resources(_ flavor: JSONValue, _ specs: JSONObject, _ image: JSONValue) -> JSONObject {
        func number(_ name: String) -> Int { flavor[name]?.intValue ?? 0 }
        // A flavor without a size takes the image's; a server without an image boots from a volume.
        let root = number("disk") > 0 ? number("disk") : image["disk_gb"]?.intValue ?? 0
        let disk = (image.isNull ? 0 : root) + number("ephemeral") + (number("swap") + 1023) / 1024
        var resources: JSONObject = [:]
        var amounts: [(String, Int)] = [("VCPU", number("vcpus")), ("MEMORY_MB", number("ram")), ("DISK_GB", disk)]
        for member in specs.members where member.name.hasPrefix("resources:") {
            let name = String(member.name.dropFirst(10))
            amounts.removeAll { $0.0 == name }
            amounts.append((name, member.value.stringValue.flatMap { Int($0) } ?? member.value.intValue ?? 0))
        }
        for (name, amount) in amounts where amount > 0 { resources[name] = JSONValue(amount) }
        return resources
    }
}
