import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// A claim on a node: of a resource class, with traits, for a project.
struct Allocation: Sendable {
    let id: UUID128
    let name: String?
    let owner: String?
    let resourceClass: String
    let traits: [String]
    /// The nodes to choose from; empty for all.
    let candidates: [UUID128]
    let extra: JSONObject
    let nodeID: UUID128?

    /// The attributes for policy rules.
    var target: PolicyTarget {
        var target = PolicyTarget.none
        target.attributes["allocation.owner"] = owner
        return target
    }
}

/// The statements about allocations. A node is chosen in the transaction that creates the allocation, so there is no intermediate state.
enum NodeClaimStore {
    static func find(_ connection: Connection, _ condition: SQL, isLocked: Bool = false) throws -> Allocation? {
        try connection.query(
            """
            SELECT id, name, owner, resource_class, traits, candidate_nodes, extra, node_id FROM bare_metal_allocations
            WHERE \(condition) \(raw: isLocked ? "FOR UPDATE" : "")
            """
        ).first.map { row in
            func texts(_ name: String) throws -> [String] { try row.json(name).arrayValue?.compactMap(\.stringValue) ?? [] }
            return Allocation(
                id: try row.uuid("id"), name: try row.optionalString("name"), owner: try row.optionalString("owner"),
                resourceClass: try row.string("resource_class"), traits: try texts("traits"),
                candidates: try texts("candidate_nodes").compactMap { UUID128($0) }, extra: try row.object("extra"),
                nodeID: try row.optionalUUID("node_id"))
        }
    }

    /// Stores an allocation with a matching node, or with the reason why no node matches.
    static func insert(_ connection: Connection, _ decision: Authorized<Allocation>, at now: Timestamp) throws {
        let allocation = try decision.value(for: "baremetal:allocation:create")
        let (node, problem) = try choose(connection, allocation)
        try store(connection, allocation, node: node, problem: problem, at: now)
        if let node { try claim(connection, node, for: allocation.id, at: now) }
    }

    /// Stores an allocation for a node that is already in use.
    ///
    /// - Throws: 409 if the node does not match.
    static func insert(_ connection: Connection, _ decision: Authorized<Allocation>, for node: Node, at now: Timestamp) throws {
        let allocation = try decision.value(for: "baremetal:allocation:create")
        func refusal(_ reason: String) -> ResourceError {
            .conflict("Cannot backfill an allocation for node \(node.id): \(reason).")
        }
        guard node.state == .active else { throw refusal("it must be active, and is \(node.state.rawValue)") }
        guard node.resourceClass == allocation.resourceClass else {
            throw refusal("its resource class is \(node.resourceClass ?? "not set"), not \(allocation.resourceClass)")
        }
        guard Set(try NodeStore.traits(connection, of: node.id)).isSuperset(of: allocation.traits) else {
            throw refusal("it does not have all traits \(allocation.traits.joined(separator: ", "))")
        }
        guard allocation.candidates.isEmpty || allocation.candidates.contains(node.id) else {
            throw refusal("it is not one of the candidate nodes")
        }
        guard node.instanceID == nil || node.instanceID == allocation.id else {
            throw refusal("it is associated with instance \(node.instanceID?.description ?? "")")
        }
        try store(connection, allocation, node: node.id, problem: nil, at: now)
        if node.instanceID == nil { try claim(connection, node.id, for: allocation.id, at: now) }
    }

    private static func store(
        _ connection: Connection, _ allocation: Allocation, node: UUID128?, problem: String?, at now: Timestamp
    ) throws {
        let row: Changes = [
            "id": "\(allocation.id)", "name": "\(allocation.name)", "owner": "\(allocation.owner)",
            "resource_class": "\(allocation.resourceClass)", "traits": "\(JSONValue(allocation.traits))::jsonb",
            "candidate_nodes": "\(JSONValue(allocation.candidates.map(\.description)))::jsonb", "extra": "\(allocation.extra)::jsonb",
            "node_id": "\(node)", "state": "\(node == nil ? "error" : "active")", "last_error": "\(problem)",
        ]
        do {
            try connection.execute(row.insertion("bare_metal_allocations", at: now, isUpdated: false))
        } catch let error as DatabaseError {
            throw refusal(error) ?? error
        }
    }

    private static func refusal(_ error: DatabaseError) -> ResourceError? {
        switch error.constraint {
        case "bare_metal_allocations_name_key": .conflict("An allocation with this name already exists.")
        case "bare_metal_allocations_pkey": .conflict("An allocation with this UUID already exists.")
        case "bare_metal_allocations_node_id_key": .conflict("The node has an allocation already.")
        default: nil
        }
    }

    private static func claim(_ connection: Connection, _ node: UUID128, for id: UUID128, at now: Timestamp) throws {
        do {
            try connection.execute("UPDATE bare_metal_nodes SET instance_uuid = \(id), updated_at = \(now) WHERE id = \(node)")
        } catch let error as DatabaseError {
            throw NodeStore.refusal(error) ?? error
        }
    }

    // MARK: choosing

    /// A matching node, locked; otherwise the reason why no node matches.
    private static func choose(_ connection: Connection, _ allocation: Allocation) throws -> (node: UUID128?, problem: String?) {
        var offered: SQL = """
            n.resource_class = \(allocation.resourceClass) AND n.provision_state = 'available' AND n.instance_uuid IS NULL
                AND n.power_state IS NOT NULL AND NOT n.maintenance AND \(Workflows.isIdle("n.id"))
            """
        if !allocation.candidates.isEmpty { offered = "\(offered) AND n.id = ANY(\(allocation.candidates.map(\.description))::uuid[])" }
        if let owner = allocation.owner { offered = "\(offered) AND (n.owner = \(owner) OR n.lessee = \(owner))" }
        let fits: SQL = """
            NOT EXISTS (SELECT 1 FROM unnest(\(allocation.traits)::text[]) w (trait) WHERE NOT EXISTS (
                SELECT 1 FROM bare_metal_node_traits t WHERE t.node_id = n.id AND t.trait = w.trait))
            """
        // Nodes are tried one after the other, because another transaction may claim a node while this one waits for its lock. A node
        // with the name of the allocation is tried first.
        var tried: [UUID128] = []
        while true {
            let rows = try connection.query(
                """
                SELECT n.id FROM bare_metal_nodes n
                WHERE \(offered) AND \(fits) AND n.id <> ALL(\(tried.map(\.description))::uuid[])
                ORDER BY n.name IS NOT DISTINCT FROM \(allocation.name) AND n.name IS NOT NULL DESC, random() LIMIT 1
                """)
            guard let id = try rows.first?.uuid("id") else { break }
            let locked = try connection.query("SELECT n.id FROM bare_metal_nodes n WHERE n.id = \(id) FOR UPDATE")
            if !locked.isEmpty,
                try !connection.query("SELECT n.id FROM bare_metal_nodes n WHERE n.id = \(id) AND \(offered) AND \(fits)").isEmpty
            {
                return (id, nil)
            }
            tried.append(id)
        }
        let others = try connection.query("SELECT 1 AS one FROM bare_metal_nodes n WHERE \(offered) LIMIT 1")
        guard others.isEmpty else {
            return (nil, "no suitable nodes have the requested traits \(allocation.traits.joined(separator: ", "))")
        }
        return (
            nil,
            allocation.candidates.isEmpty
                ? "no available nodes match the resource class \(allocation.resourceClass)"
                : "none of the requested nodes are available and match the resource class \(allocation.resourceClass)"
        )
    }

    // MARK: changes

    static func update(_ connection: Connection, _ decision: Authorized<Allocation>, _ changes: Changes, at now: Timestamp) throws {
        let id = try decision.value(for: "baremetal:allocation:update").id
        do {
            try changes.apply(connection, "bare_metal_allocations", id, at: now)
        } catch let error as DatabaseError {
            throw refusal(error) ?? error
        }
    }

    /// Removes an allocation and frees its node.
    ///
    /// - Throws: 409 while the node is in use or has work in progress.
    static func delete(_ connection: Connection, _ decision: Authorized<Allocation>, at now: Timestamp) throws {
        let allocation = try decision.value(for: "baremetal:allocation:delete")
        if let nodeID = allocation.nodeID, let node = try NodeStore.node(connection, nodeID.description, isLocked: true) {
            let isFree = node.isInMaintenance || !node.state.isOccupied && !node.state.isWorking
            guard isFree, try !Workflows.isActive(connection, subject: nodeID.description) else {
                throw ResourceError.conflict(
                    """
                    Cannot remove allocation \(allocation.id) for node \(nodeID), because the node is \(node.state.rawValue) and not in \
                    maintenance.
                    """)
            }
            try connection.execute("UPDATE bare_metal_nodes SET instance_uuid = NULL, updated_at = \(now) WHERE id = \(nodeID)")
        }
        try connection.execute("DELETE FROM bare_metal_allocations WHERE id = \(allocation.id)")
    }

    /// Removes the allocation of a node whose instance a request has removed or replaced.
    static func forgetWithoutInstance(_ connection: Connection, _ decision: Authorized<Node>) throws {
        let id = try decision.value(for: "baremetal:node:update").id
        try connection.execute(
            """
            DELETE FROM bare_metal_allocations a USING bare_metal_nodes n
            WHERE a.node_id = n.id AND n.id = \(id) AND n.instance_uuid IS DISTINCT FROM a.id
            """)
    }

    /// Removes the allocation of a node whose instance is gone.
    static func forget(_ connection: Connection, node id: String) throws {
        try connection.execute("DELETE FROM bare_metal_allocations WHERE node_id = \(id)::uuid")
    }
}
