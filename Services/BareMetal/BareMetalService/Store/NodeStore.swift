import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// A node as requests and workflows read it.
struct Node: Sendable {
    let id: UUID128
    let name: String?
    let state: ProvisionState
    let target: ProvisionState?
    let owner: String?
    let lessee: String?
    let driver: String
    let driverInfo: JSONObject
    let interfaces: [HardwareInterface: String]
    let power: NodePower?
    let targetPower: String?
    let isInMaintenance: Bool
    let isProtected: Bool
    let isRetired: Bool
    let cleansAutomatically: Bool?
    let disablesPowerOff: Bool
    let instanceID: UUID128?
    let resourceClass: String?
    let sealedSecrets: NodeSecrets.Sealed?

    /// Whether an agent in a ramdisk deploys and cleans it.
    var usesAgent: Bool { interfaces[.deploy] == "direct" }
    /// Whether an agent in a ramdisk inspects it.
    var isInspectedByAgent: Bool { interfaces[.inspect] == "agent" }
    /// The attributes for policy rules.
    var policyTarget: [String: String] {
        var target: [String: String] = [:]
        target["node.owner"] = owner
        target["node.lessee"] = lessee
        return target
    }
}

/// The statements about nodes.
enum NodeStore {
    static let columns: SQL = """
        n.id, n.name, n.provision_state, n.target_provision_state, n.owner, n.lessee, n.driver, n.driver_info, n.power_state,
        n.target_power_state, n.maintenance, n.protected, n.retired, n.automated_clean, n.disable_power_off, n.instance_uuid,
        n.resource_class, encode(n.driver_secrets, 'hex') AS driver_secrets, n.driver_secrets_key,
        json_build_object(\(raw: interfaces)) AS interfaces
        """

    private static let interfaces = HardwareInterface.allCases.map { "'\($0.rawValue)', n.\($0.member)" }.joined(separator: ", ")

    /// A node by its id or name.
    static func node(_ connection: Connection, _ ident: String, isLocked: Bool = false) throws -> Node? {
        let condition: SQL = UUID128(ident).map { "n.id = \($0)" } ?? "n.name = \(ident)"
        return try connection.query(
            "SELECT \(columns) FROM bare_metal_nodes n WHERE \(condition) \(raw: isLocked ? "FOR UPDATE" : "")"
        ).first.map(node)
    }

    /// Whether a column has the id of the node that a filter names, by its id or name.
    static func isNode(_ column: String, _ ident: String) -> SQL {
        UUID128(ident).map { "\(raw: column) = \($0)" }
            ?? "\(raw: column) = (SELECT n.id FROM bare_metal_nodes n WHERE n.name = \(ident))"
    }

    static func node(_ row: Row) throws -> Node {
        let words = try row.object("interfaces")
        func state(_ name: String) throws -> ProvisionState? {
            guard let word = try row.optionalString(name) else { return nil }
            guard let state = ProvisionState(rawValue: word) else { throw ResourceError.internalError("a node has the state '\(word)'") }
            return state
        }
        guard let provision = try state("provision_state") else { throw ResourceError.internalError("a node has no state") }
        return Node(
            id: try row.uuid("id"), name: try row.optionalString("name"), state: provision, target: try state("target_provision_state"),
            owner: try row.optionalString("owner"), lessee: try row.optionalString("lessee"), driver: try row.string("driver"),
            driverInfo: try row.object("driver_info"),
            interfaces: Dictionary(
                uniqueKeysWithValues: HardwareInterface.allCases.map { ($0, words[$0.rawValue]?.stringValue ?? "") }),
            power: try row.optionalString("power_state").flatMap(NodePower.init), targetPower: try row.optionalString("target_power_state"),
            isInMaintenance: try row.bool("maintenance"), isProtected: try row.bool("protected"), isRetired: try row.bool("retired"),
            cleansAutomatically: try row.optionalBool("automated_clean"), disablesPowerOff: try row.bool("disable_power_off"),
            instanceID: try row.optionalUUID("instance_uuid"), resourceClass: try row.optionalString("resource_class"),
            sealedSecrets: try sealed(row))
    }

    private static func sealed(_ row: Row) throws -> NodeSecrets.Sealed? {
        guard let text = try row.optionalString("driver_secrets"), let bytes = Hexadecimal.decode(text),
            let keyID = try row.optionalString("driver_secrets_key")
        else { return nil }
        return NodeSecrets.Sealed(keyID: keyID, bytes: bytes)
    }

    /// The `instance_info` of a node, including secrets.
    static func instanceInfo(_ connection: Connection, of id: UUID128) throws -> JSONObject {
        try connection.query("SELECT instance_info FROM bare_metal_nodes WHERE id = \(id)").first?.object("instance_info") ?? [:]
    }

    static func properties(_ connection: Connection, of id: UUID128) throws -> JSONObject {
        try connection.query("SELECT properties FROM bare_metal_nodes WHERE id = \(id)").first?.object("properties") ?? [:]
    }

    /// A node that a request creates.
    struct Draft: Sendable {
        let id: UUID128
        let changes: Changes
        let state: ProvisionState
    }

    static func insert(_ connection: Connection, _ draft: Authorized<Draft>, at now: Timestamp) throws {
        let new = try draft.value(for: "baremetal:node:create")
        var changes = new.changes
        changes.set("id", new.id)
        changes.set("provision_state", new.state.rawValue)
        do {
            try connection.execute(changes.insertion("bare_metal_nodes", at: now, isUpdated: false))
        } catch let error as DatabaseError {
            throw NodeStore.refusal(error) ?? error
        }
    }

    /// The error for values that violate a constraint; nil for other errors.
    static func refusal(_ error: DatabaseError) -> ResourceError? {
        switch error.constraint {
        case "bare_metal_nodes_name_key": .conflict("A node with this name already exists.")
        case "bare_metal_nodes_instance_uuid_key": .conflict("The instance is associated with another node already.")
        case "bare_metal_nodes_pkey": .conflict("A node with this UUID already exists.")
        case "bare_metal_nodes_chassis_uuid_fkey": .badRequest("Invalid input for chassis_uuid. There is no such chassis.")
        case "bare_metal_nodes_parent_node_fkey": .badRequest("Invalid input for parent_node. There is no such node.")
        default: nil
        }
    }

    /// Changes members of a node.
    static func update(
        _ connection: Connection, _ node: Authorized<Node>, _ changes: Changes, for action: String, at now: Timestamp
    ) throws {
        let id = try node.value(for: action).id
        do {
            try changes.apply(connection, "bare_metal_nodes", id, at: now, isCounted: true)
        } catch let error as DatabaseError {
            throw NodeStore.refusal(error) ?? error
        }
    }

    static func delete(_ connection: Connection, _ node: Authorized<Node>) throws {
        let node = try node.value(for: "baremetal:node:delete")
        do {
            try connection.execute("DELETE FROM bare_metal_nodes WHERE id = \(node.id)")
        } catch let error as DatabaseError where error.constraint == "bare_metal_nodes_parent_node_fkey" {
            throw ResourceError.conflict("Node \(node.id) has child nodes; remove them first.")
        }
    }

    // MARK: states

    /// Moves a node to the state after `event`.
    ///
    /// - Returns: whether the node was in a state that allows it.
    @discardableResult
    static func move(
        _ connection: Connection, _ id: String, _ event: ProvisionState.Event, target: ProvisionState? = nil, error: String? = nil,
        at now: Timestamp
    ) throws -> Bool {
        let possible = ProvisionState.before(event).compactMap { from in from.after(event).map { (from: from, to: $0) } }
        let goals = possible.map { $0.to.usualTarget == nil ? "" : (target ?? $0.to.usualTarget)?.rawValue ?? "" }
        return try connection.execute(
            """
            UPDATE bare_metal_nodes SET provision_state = possible.new, target_provision_state = nullif(possible.goal, ''),
                provision_updated_at = \(now), last_error = \(error), updated_at = \(now), generation = generation + 1
            FROM unnest(\(possible.map(\.from.rawValue))::text[], \(possible.map(\.to.rawValue))::text[], \(goals)::text[])
                AS possible (old, new, goal)
            WHERE id = \(id)::uuid AND provision_state = possible.old
            """) == 1
    }

    /// Moves a node to the state that a request starts.
    static func begin(
        _ connection: Connection, _ node: Authorized<Node>, _ event: ProvisionState.Event, target: ProvisionState? = nil, at now: Timestamp
    ) throws {
        let node = try node.value(for: "baremetal:node:set_provision_state")
        guard try move(connection, node.id.description, event, target: target, at: now) else {
            throw ResourceError.conflict("Node \(node.id) has changed its state in the meantime.")
        }
    }

    static func requestPower(_ connection: Connection, _ node: Authorized<Node>, _ target: NodePower.Target, at now: Timestamp) throws {
        let id = try node.value(for: "baremetal:node:set_power_state").id
        try connection.execute(
            """
            UPDATE bare_metal_nodes SET target_power_state = \(target.result.rawValue), last_error = NULL, updated_at = \(now)
            WHERE id = \(id)
            """)
    }

    /// Records the power state that a controller reported, and clears the target.
    static func recordPower(_ connection: Connection, _ id: String, _ power: NodePower?, error: String? = nil, at now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE bare_metal_nodes SET power_state = coalesce(\(power?.rawValue), power_state), target_power_state = NULL,
                last_error = coalesce(\(error), last_error), updated_at = \(now)
            WHERE id = \(id)::uuid
            """)
    }

    // MARK: history

    /// Adds a client's request to the node's history.
    static func record(_ connection: Connection, _ node: Authorized<Node>, _ text: String, ambient: Ambient) throws {
        let id = try node.value(for: "baremetal:node:set_provision_state").id
        try record(
            connection, id.description, "provisioning", text, isError: false, user: node.caller.userID, ambient: ambient)
    }

    /// Adds an event to the node's history.
    static func record(
        _ connection: Connection, _ id: String, _ type: String, _ text: String, isError: Bool, user: String? = nil, ambient: Ambient
    ) throws {
        try connection.execute(
            """
            INSERT INTO bare_metal_node_history (id, node_id, created_at, severity, event_type, event, conductor, user_id)
            SELECT \(ambient.newUUID()), n.id, \(ambient.now), \(isError ? "ERROR" : "INFO"), \(type), \(text), 'wolke-bare-metal', \(user)
            FROM bare_metal_nodes n WHERE n.id = \(id)::uuid
            """)
    }

    // MARK: traits

    static func traits(_ connection: Connection, of id: UUID128) throws -> [String] {
        try connection.query("SELECT trait FROM bare_metal_node_traits WHERE node_id = \(id) ORDER BY trait").map { try $0.string("trait") }
    }

    /// Adds traits, or replaces all.
    static func setTraits(_ connection: Connection, _ node: Authorized<Node>, _ traits: [String], isReplaced: Bool, at now: Timestamp)
        throws
    {
        let id = try node.value(for: "baremetal:node:traits:set").id
        if isReplaced { try connection.execute("DELETE FROM bare_metal_node_traits WHERE node_id = \(id)") }
        try connection.execute(
            """
            INSERT INTO bare_metal_node_traits (node_id, trait) SELECT \(id), * FROM unnest(\(traits)::text[]) ON CONFLICT DO NOTHING
            """)
        try touch(connection, id, at: now)
        let count = try connection.query("SELECT count(*) AS n FROM bare_metal_node_traits WHERE node_id = \(id)")[0].int("n")
        guard count <= BareMetalLimits.traitsMax else {
            throw ResourceError.badRequest("Node \(id) cannot have more than \(BareMetalLimits.traitsMax) traits.")
        }
    }

    /// - Parameter trait: nil for all.
    static func removeTraits(_ connection: Connection, _ node: Authorized<Node>, _ trait: String?, at now: Timestamp) throws {
        let id = try node.value(for: "baremetal:node:traits:delete").id
        let condition: SQL = trait.map { "trait = \($0)" } ?? "TRUE"
        let removed = try connection.execute("DELETE FROM bare_metal_node_traits WHERE node_id = \(id) AND \(condition)")
        if let trait, removed == 0 { throw ResourceError.notFound("Node \(id) doesn't have a trait '\(trait.prefix(255))'.") }
        try touch(connection, id, at: now)
    }

    private static func touch(_ connection: Connection, _ id: UUID128, at now: Timestamp) throws {
        try connection.execute("UPDATE bare_metal_nodes SET updated_at = \(now), generation = generation + 1 WHERE id = \(id)")
    }
}
