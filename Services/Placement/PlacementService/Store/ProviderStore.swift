import Authorization
import Database
import JSON
import Kernel
import PlacementCore
import WebAPI

/// Statements for resource providers.
enum ProviderStore {
    /// Conditions on the provider `t` itself.
    static func conditions(_ query: ProviderQuery) -> [SQL] {
        var conditions: [SQL] = query.resources.map { hasCapacity(for: $0, provider: "t") }
        conditions += query.required.map { group in
            "EXISTS (SELECT 1 FROM provider_traits p WHERE p.resource_provider_id = t.id AND p.trait = ANY(\(group)::text[]))"
        }
        if !query.forbidden.isEmpty {
            conditions.append(
                """
                NOT EXISTS (SELECT 1 FROM provider_traits p WHERE p.resource_provider_id = t.id AND p.trait = \
                ANY(\(query.forbidden)::text[]))
                """
            )
        }
        return conditions + memberships(query) + tree(query)
    }

    static func tree(_ query: ProviderQuery) -> [SQL] {
        query.inTree.map { ["t.root_id = (SELECT root_id FROM resource_providers WHERE id = \($0))"] } ?? []
    }

    /// Membership in Placement's own aggregates or in those of Compute.
    static func memberships(_ query: ProviderQuery) -> [SQL] {
        func isMember(_ ids: [UUID128]) -> SQL {
            """
            (EXISTS (SELECT 1 FROM provider_aggregates g WHERE g.resource_provider_id = t.id AND g.aggregate_id = ANY(\(ids)::uuid[]))
                OR EXISTS (SELECT 1 FROM published_aggregate_hosts h JOIN published_aggregates a ON a.id = h.aggregate_id
                    WHERE h.host = t.host AND a.uuid = ANY(\(ids)::uuid[])))
            """
        }
        var conditions = query.memberOf.map(isMember)
        if !query.notMemberOf.isEmpty { conditions.append("NOT " + isMember(query.notMemberOf)) }
        return conditions
    }

    /// Whether a provider currently has enough capacity for an allocation of this amount.
    static func hasCapacity(for need: ResourceAmount, provider: String) -> SQL {
        """
        EXISTS (SELECT 1 FROM inventories i WHERE i.resource_provider_id = \(raw: provider).id
            AND i.resource_class = \(need.resourceClass) AND \(need.amount)::bigint BETWEEN i.min_unit AND i.max_unit
            AND \(need.amount)::bigint % i.step_size = 0
            AND \(need.amount)::bigint + coalesce((SELECT sum(a.used) FROM allocations a
                WHERE a.resource_provider_id = \(raw: provider).id AND a.resource_class = i.resource_class), 0)
                <= trunc((i.total - i.reserved) * i.allocation_ratio))
        """
    }

    // MARK: writing

    static func insert(
        _ connection: Connection, _ provider: Authorized<String>, name: String, parent: String?, at now: Timestamp
    ) throws {
        let id = try provider.value(for: "placement:resource_providers:create")
        var root = id
        if let parent {
            guard parent != id else {
                throw ResourceError.badRequest("A resource provider cannot be its own parent (parent_provider_uuid \(parent)).")
            }
            root = try rootLocked(connection, of: parent)
        }
        let row: Changes = ["id": "\(id)", "name": "\(name)", "parent_id": "\(parent)", "root_id": "\(root)"]
        do {
            _ = try connection.savepoint { try $0.execute(row.insertion("resource_providers", at: now)) }
        } catch let error as DatabaseError where error.isUniqueViolation {
            throw duplicate(error, id: id, name: name)
        }
    }

    private static func duplicate(_ error: DatabaseError, id: String, name: String) -> ResourceError {
        error.constraint == "resource_providers_pkey"
            ? .conflict("Conflicting resource provider uuid: \(id) already exists.", type: "placement.duplicate_name")
            : .conflict("Conflicting resource provider name: \(name) already exists.", type: "placement.duplicate_name")
    }

    private static func rootLocked(_ connection: Connection, of parent: String) throws -> String {
        let rows = try connection.query("SELECT root_id FROM resource_providers WHERE id = \(parent)::uuid FOR UPDATE")
        guard let row = rows.first else {
            throw ResourceError.badRequest("Unable to create or move a resource provider: parent provider UUID \(parent) does not exist.")
        }
        return try row.string("root_id")
    }

    /// Locks a provider until the transaction ends, and increments its generation.
    ///
    /// - Parameter expected: the generation that the client has read; nil if it need not specify one.
    /// - Returns: the new generation.
    /// - Throws: 404 if there is no such provider, 409 if it has changed since the client read it.
    static func touch(_ connection: Connection, provider id: String, expected: Int?, at now: Timestamp) throws -> Int {
        let rows = try connection.query(
            "UPDATE resource_providers SET generation = generation + 1, updated_at = \(now) WHERE id = \(id)::uuid RETURNING generation")
        guard let row = rows.first else { throw Placement.noProvider(id) }
        let generation = try row.int("generation")
        if let expected, expected != generation - 1 {
            throw Placement.conflict("resource provider generation conflict: actual: \(generation - 1), given: \(expected)")
        }
        return generation
    }

    /// The same for a request that changes what belongs to the provider.
    @discardableResult
    static func touch(
        _ connection: Connection, _ provider: Authorized<String>, for action: String, expected: Int? = nil, at now: Timestamp
    ) throws -> Int {
        let id = try provider.value(for: action)
        return try touch(connection, provider: id, expected: expected, at: now)
    }

    static func rename(_ connection: Connection, _ provider: Authorized<String>, name: String) throws {
        let id = try provider.value(for: "placement:resource_providers:update")
        do {
            _ = try connection.savepoint {
                try $0.execute("UPDATE resource_providers SET name = \(name) WHERE id = \(id)::uuid AND name <> \(name)")
            }
        } catch let error as DatabaseError where error.isUniqueViolation {
            throw duplicate(error, id: id, name: name)
        }
    }

    /// - Parameter freely: whether the parent of a provider that has one may be changed or removed.
    static func move(_ connection: Connection, _ provider: Authorized<String>, parent: String?, freely: Bool) throws {
        let id = try provider.value(for: "placement:resource_providers:update")
        // Trees are changed one at a time, so that two concurrent moves cannot create a loop.
        try connection.query("SELECT pg_advisory_xact_lock(hashtextextended('placement.trees', 0))")
        let current = try connection.query("SELECT parent_id FROM resource_providers WHERE id = \(id)::uuid")[0]
            .optionalString("parent_id")
        if current == parent { return }
        if current != nil, !freely {
            throw ResourceError.badRequest(
                """
                Unable to save resource provider \(id): Object action update failed because: re-parenting a \
                provider is not currently allowed.
                """
            )
        }
        let root = try parent.map { try rootLocked(connection, of: $0) } ?? id
        let below = try connection.query(
            """
            WITH RECURSIVE tree AS (
                SELECT \(id)::uuid AS id UNION SELECT c.id FROM resource_providers c JOIN tree ON c.parent_id = tree.id)
            SELECT id FROM tree
            """
        ).map { try $0.string("id") }
        if let parent, below.contains(parent) {
            throw ResourceError.badRequest("Unable to save resource provider \(id): creating loop in the provider tree is not allowed.")
        }
        try connection.execute("UPDATE resource_providers SET parent_id = \(parent)::uuid, root_id = \(root)::uuid WHERE id = \(id)::uuid")
        try connection.execute("UPDATE resource_providers SET root_id = \(root)::uuid WHERE id = ANY(\(below)::uuid[])")
    }

    static func delete(_ connection: Connection, _ provider: Authorized<String>, at now: Timestamp) throws {
        let id = try provider.value(for: "placement:resource_providers:delete")
        try remove(connection, id: id, at: now)
    }

    /// Deletes a provider; called without a caller if its host was deleted.
    ///
    /// - Throws: 409 if it has allocations or children.
    static func remove(_ connection: Connection, id: String, at now: Timestamp) throws {
        _ = try ProviderStore.touch(connection, provider: id, expected: nil, at: now)
        let used = try connection.query("SELECT 1 AS one FROM allocations WHERE resource_provider_id = \(id)::uuid LIMIT 1")
        guard used.isEmpty else {
            throw ResourceError.conflict(
                "Unable to delete resource provider \(id): Resource provider has allocations.",
                type: "placement.resource_provider.inuse")
        }
        let children = try connection.query("SELECT 1 AS one FROM resource_providers WHERE parent_id = \(id)::uuid LIMIT 1")
        guard children.isEmpty else {
            throw ResourceError.conflict(
                "Unable to delete parent resource provider \(id): It has child resource providers.",
                type: "placement.resource_provider.cannot_delete_parent")
        }
        try connection.execute("DELETE FROM resource_providers WHERE id = \(id)::uuid")
    }
}
