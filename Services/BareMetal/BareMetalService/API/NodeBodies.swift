import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// The bodies of requests that create and change nodes.
enum NodeBodies {
    private static func since(_ name: String, _ schema: BodySchema, _ minor: Int) -> BodySchema.Property {
        BodySchema.Property(name, .nullable(schema), versions: .minor(minor))
    }

    private static let document = BodySchema.nullable(.object([], additional: .allowed))

    static let new = BodySchema.object(
        [
            .init("driver", .string(min: 1, max: 255, format: nil), required: true), .init("uuid", .nullable(.uuid)),
            since("name", .string(min: 0, max: 255, format: nil), 5), .init("driver_info", document), .init("properties", document),
            .init("instance_info", document), .init("extra", document), .init("chassis_uuid", .nullable(.uuid)),
            .init("instance_uuid", .nullable(.uuid)), .init("maintenance", .nullable(.boolean)),
            since("resource_class", .string(min: 0, max: 80, format: nil), 21),
            since("conductor_group", .string(min: 0, max: 0, format: nil), 46),
            since("automated_clean", .boolean, 47), since("owner", .text, 50),
            since("description", .string(min: 0, max: BareMetalLimits.descriptionMax, format: nil), 51),
            since("retired", .boolean, 61), since("retired_reason", .text(4096), 61), since("lessee", .text, 65),
            since("network_data", document, 66), since("shard", .text, 82), since("parent_node", .uuid, 83),
            since("disable_power_off", .boolean, 95),
        ] + HardwareInterface.allCases.map { .init($0.member, .nullable(.identifier), versions: VersionRange(from: $0.since)) })

    static let maintenance = BodySchema.object([.init("reason", .nullable(.string(min: 0, max: 4096, format: nil)))])

    static let validation = BodySchema.object([], additional: .allowed)

    /// The members of a node that a PATCH may name.
    static let patchable: Set<String> = {
        var names = Set(ResourceKind.nodes.table.fields.compactMap(\.settable))
        names.formUnion(["protected", "protected_reason"])
        names.remove("uuid")
        return names
    }()

    /// The implementations that a body names.
    static func interfaces(_ body: JSONObject) -> [HardwareInterface: String] {
        var result: [HardwareInterface: String] = [:]
        for interface in HardwareInterface.allCases { result[interface] = body[interface.member]?.stringValue }
        return result
    }

    /// The columns that a body sets. Checks the rules that its schema cannot express.
    ///
    /// - Throws: 400 naming the member.
    static func settings(_ body: JSONObject, _ context: RequestContext) throws -> [Setting] {
        var body = body
        for name in ["driver_info", "properties", "instance_info", "extra", "network_data"] {
            if let value = body[name] { body[name] = .object(try NodeRules.document(value, name)) }
        }
        if let network = body["network_data"]?.objectValue, !network.isEmpty {
            throw ResourceError.badRequest(
                "Invalid input for network_data. No deploy interface of this cloud can use it yet; it must be empty.")
        }
        try NodeRules.normalizeName(&body, of: "node")
        for name in ["owner", "lessee", "shard", "resource_class"] where body[name]?.stringValue?.isEmpty == true { body[name] = .null }
        // Interface implementations are completed and credentials are sealed elsewhere.
        let interfaces = Set(HardwareInterface.allCases.map(\.member) + ["driver_info"])
        return ResourceKind.nodes.settings(JSONObject(body.members.filter { !interfaces.contains($0.name) }.map { ($0.name, $0.value) }))
    }
}

/// The change of a node by a patch.
struct NodeUpdate {
    let bareMetal: BareMetal
    let context: RequestContext
    let node: Node

    /// The columns to change.
    ///
    /// - Throws: 400 for members that cannot be changed, or that cannot have this value; 403 if a member requires a further permission; 406
    ///   for a member that this version does not have; 409 in the wrong state.
    func changes(_ connection: Connection, _ patch: JSONPatch) throws -> Changes {
        let known = Set(ResourceKind.nodes.table.visible(context).map(\.name))
        if let unknown = patch.members.intersection(NodeBodies.patchable).subtracting(known).first {
            let since = ResourceKind.nodes.table.fields.first { $0.name == unknown }?.versions.from?.minor ?? 1
            throw NodeRoutes.notAcceptable(since, "the member \(unknown)")
        }
        try requireRights(patch.members)
        let old = try document(connection)
        let new = try patch.applied(to: old, members: NodeBodies.patchable)
        var changed = JSONObject(new.members.filter { old[$0.name] != $0.value }.map { ($0.name, $0.value) })
        try requireStates(changed)
        try NodeRules.requireKnownConfigDrive(
            new["instance_info"]?.objectValue ?? [:], old: old["instance_info"]?.objectValue ?? [:])
        let reset = try context.query.flag("reset_interfaces") ?? false
        if reset, changed["driver"] == nil {
            throw ResourceError.badRequest("The reset_interfaces parameter can only be used when changing the node's driver.")
        }
        let interfaces = try completedInterfaces(new, changed, reset: reset)
        changed = try validated(changed)
        var changes = Changes(try NodeBodies.settings(changed, context) + NodeUpdate.settings(interfaces))
        // Another hardware type has other credentials.
        if changed["driver_info"] != nil || changed["driver"] != nil {
            let info = try NodeRules.document(changed["driver_info"] ?? .object(node.driverInfo), "driver_info")
            let type = try bareMetal.hardware.type(named: new["driver"]?.stringValue ?? "")
            changes.merge(try bareMetal.secrets.settings(info, type, node: node.id, old: (node.sealedSecrets, node.driverInfo)))
        }
        if changed["maintenance"] == false {
            changes.set("maintenance_reason", nil as String?)
            changes.set("fault", nil as String?)
        }
        return changes
    }

    /// The members that can be changed, as they are stored.
    private func document(_ connection: Connection) throws -> JSONObject {
        let fields = ResourceKind.nodes.table.fields.filter { NodeBodies.patchable.contains($0.name) && $0.presence != .never }
        let rows = try ResourceKind.nodes.table.query(connection, fields, where: "t.id = \(node.id)")
        var writer = JSONWriter()
        try RowWriter(fields, context).object(rows, row: 0, into: &writer)
        var document = try JSONValue.parse(writer.bytes).objectValue ?? [:]
        // Read the stored value: the placeholder that clients see instead of a config drive must not be written back.
        document["instance_info"] = .object(try NodeStore.instanceInfo(connection, of: node.id))
        return document
    }

    /// Members whose change requires a permission beyond the one to update nodes.
    private func requireRights(_ members: Set<String>) throws {
        let target = BareMetal.target(node)
        let interfaces = Set(HardwareInterface.allCases.map(\.member))
        for member in members.sorted() {
            let action: String? =
                switch member {
                case "driver", "driver_info", "conductor_group", "chassis_uuid", "shard", "parent_node", "resource_class":
                    "baremetal:node:update:driver"
                case _ where interfaces.contains(member): "baremetal:node:update:driver"
                case "owner": "baremetal:node:update:owner"
                case "lessee": "baremetal:node:update:lessee"
                case "instance_uuid", "instance_info": "baremetal:node:update:instance"
                case "automated_clean": "baremetal:node:disable_cleaning"
                case "protected", "protected_reason": "baremetal:node:update:protected"
                default: nil
                }
            if let action, !context.allows(action, target: target) {
                throw ResourceError.forbidden("Policy doesn't allow \(action) to be performed.")
            }
        }
    }

    /// Members that can only be changed in some states.
    private func requireStates(_ changed: JSONObject) throws {
        let interfaces = Set(HardwareInterface.allCases.map(\.member) + ["driver"])
        let isFree = [.enroll, .manageable, .available, .inspecting, .inspectFailed, .cleanFailed].contains(node.state)
        for name in changed.names {
            if interfaces.contains(name) || name == "resource_class", !isFree, !node.isInMaintenance {
                throw ResourceError.conflict(
                    """
                    Node \(node.id) can not have \(name) updated unless it is in one of the states enroll, manageable, available, inspect \
                    failed, clean failed, or in maintenance; it is \(node.state.rawValue).
                    """)
            }
            if name == "protected", changed[name].flatMap(BodySchema.boolean) == true, node.state != .active, node.state != .rescue {
                throw ResourceError.conflict(
                    "Node \(node.id) can only be protected while it is active or in rescue, not \(node.state.rawValue).")
            }
            if name == "retired", changed[name].flatMap(BodySchema.boolean) == true, node.state == .available {
                throw ResourceError.conflict("Node \(node.id) can not have 'retired' set while it is available; manage it first.")
            }
            if name == "instance_uuid", node.isInMaintenance == false, changed[name] != .null, node.instanceID != nil {
                throw ResourceError.conflict("Node \(node.id) is associated with instance \(node.instanceID?.description ?? "").")
            }
        }
    }

    /// Validates each member as in a request that creates a node.
    private func validated(_ changed: JSONObject) throws -> JSONObject {
        let flags: Set<String> = ["protected"]
        var result = JSONObject()
        for (name, value) in changed.members {
            if flags.contains(name) {
                guard let flag = BodySchema.boolean(value) else { throw NodeUpdate.invalid(name, value, "It must be true or false.") }
                result[name] = .bool(flag)
            } else if name == "protected_reason" {
                guard value == .null || (value.stringValue.map { $0.utf8.count <= 4096 } ?? false) else {
                    throw NodeUpdate.invalid(name, value, "It must be a text of up to 4096 bytes.")
                }
                result[name] = value
            } else if name == "driver", value == .null {
                throw NodeUpdate.invalid(name, value, "A node must have a driver.")
            } else {
                var probe = JSONObject([(name, value)])
                if name != "driver" { probe["driver"] = .string(node.driver) }
                let checked = try NodeBodies.new.validate(.object(probe), version: context.version).objectValue ?? [:]
                result[name] = checked[name] ?? value
            }
        }
        if let parent = result["parent_node"]?.stringValue, UUID128(parent) == node.id {
            throw ResourceError.badRequest("Invalid input for parent_node. Value: '\(parent)'. A node cannot be its own parent.")
        }
        return result
    }

    private static func invalid(_ name: String, _ value: JSONValue, _ rule: String) -> ResourceError {
        .badRequest("Invalid input for \(name). Value: \(value.description.prefix(64)). \(rule)")
    }

    /// The interface implementations after the change; empty if neither they nor the driver change.
    private func completedInterfaces(_ new: JSONObject, _ changed: JSONObject, reset: Bool) throws -> [HardwareInterface: String] {
        let type = try bareMetal.hardware.type(named: new["driver"]?.stringValue ?? "")
        let named = NodeBodies.interfaces(JSONObject(changed.members.map { ($0.name, $0.value) }))
        let removed = HardwareInterface.allCases.filter { changed[$0.member] == .null }
        guard changed["driver"] != nil || !named.isEmpty || !removed.isEmpty else { return [:] }
        var chosen = reset ? named : node.interfaces.merging(named) { $1 }
        for interface in removed { chosen[interface] = nil }
        return try type.complete(chosen)
    }

    static func settings(_ interfaces: [HardwareInterface: String]) -> [Setting] {
        HardwareInterface.allCases.compactMap { interface in
            interfaces[interface].map { Setting(interface.member, .string($0), isJSON: false) }
        }
    }
}
