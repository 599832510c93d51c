import Authorization
import Database
import JSON
import Kernel
import PlacementCore

/// The new allocations of a consumer, which replace its present ones.
struct AllocationChange: Sendable {
    enum Expectation: Sendable, Hashable {
        /// Clients before 1.28 do not specify it.
        case unspecified
        case new
        case generation(Int)
    }

    var consumer: String
    /// Amounts by provider id and class; empty to remove all allocations.
    var resources: [String: [ResourceAmount]]
    var project: String
    var user: String
    var type: String?
    var expectation: Expectation

    /// For the audit record.
    var record: JSONValue {
        let allocations = resources.sorted { $0.key < $1.key }.map { id, amounts in
            (id, JSONValue.object(JSONObject(amounts.map { ($0.resourceClass, JSONValue($0.amount)) })))
        }
        return [
            "consumer": .string(consumer), "project_id": .string(project), "user_id": .string(user), "consumer_type": JSONValue(type),
            "allocations": .object(JSONObject(allocations)),
        ]
    }
}

/// Statements for allocations. Consumers and then providers are locked in the order of their ids, so that concurrent changes wait
/// for each other without deadlocks.
enum AllocationStore {
    /// The columns of new allocations.
    static let columns: SQL = "consumer_id, resource_provider_id, resource_class, used, created_at, updated_at"
    /// The columns of new consumers.
    static let consumerColumns: SQL = "id, project_id, user_id, consumer_type, generation, scheduled, created_at, updated_at"

    /// For `consumers t`: the consumer if it has allocations.
    static func consumer(_ id: String) -> SQL {
        "t.id = \(id)::uuid AND EXISTS (SELECT 1 FROM allocations a WHERE a.consumer_id = t.id)"
    }

    /// The project and user for clients that do not specify any.
    static let incomplete = "00000000-0000-0000-0000-000000000000"

    /// Applies the changes together.
    ///
    /// - Returns: the affected providers.
    /// - Throws: 409 if something changed in the meantime or does not fit, 400 for unknown providers or classes.
    @discardableResult
    static func replace(
        _ connection: Connection, _ changes: Authorized<[AllocationChange]>, at now: Timestamp
    ) throws -> [String] {
        let changes = try changes.value(for: "placement:allocations:update", "placement:allocations:manage").sorted {
            $0.consumer < $1.consumer
        }
        try Placement.requireClasses(
            connection, Set(changes.flatMap { $0.resources.values.joined().map(\.resourceClass) }).sorted())
        for change in changes { try lockConsumer(connection, change, at: now) }
        let consumers = changes.map(\.consumer)
        let old = try connection.query(
            "SELECT DISTINCT resource_provider_id AS id FROM allocations WHERE consumer_id = ANY(\(consumers)::uuid[])"
        ).map { try $0.string("id") }
        let new = Set(changes.flatMap(\.resources.keys))
        let providers = new.union(old).sorted()
        for id in providers {
            do { _ = try ProviderStore.touch(connection, provider: id, expected: nil, at: now) } catch let error as ResourceError
                where error.code == .notFound
            {
                throw ResourceError.badRequest("Allocation for resource provider '\(id)' that does not exist.")
            }
        }
        try connection.execute("DELETE FROM allocations WHERE consumer_id = ANY(\(consumers)::uuid[])")
        for change in changes {
            for (id, amounts) in change.resources.sorted(by: { $0.key < $1.key }) {
                try add(connection, consumer: change.consumer, provider: id, amounts, at: now)
            }
        }
        let emptied = changes.filter { $0.resources.values.allSatisfy(\.isEmpty) }.map(\.consumer)
        if !emptied.isEmpty { try connection.execute("DELETE FROM consumers WHERE id = ANY(\(emptied)::uuid[])") }
        return providers
    }

    private static func lockConsumer(_ connection: Connection, _ change: AllocationChange, at now: Timestamp) throws {
        let inserted = try connection.query(
            """
            INSERT INTO consumers (\(consumerColumns))
            VALUES (\(change.consumer)::uuid, \(change.project), \(change.user), \(change.type), 1, false, \(now), \(now))
            ON CONFLICT (id) DO NOTHING RETURNING id
            """)
        guard inserted.isEmpty else {
            if case .generation(let expected) = change.expectation {
                throw Placement.conflict("consumer generation conflict - expected null but got \(expected)")
            }
            return
        }
        let rows = try connection.query("SELECT generation FROM consumers WHERE id = \(change.consumer)::uuid FOR UPDATE")
        guard let row = rows.first else { throw Placement.conflict("The consumer \(change.consumer) was deleted concurrently.") }
        let actual = try row.int("generation")
        switch change.expectation {
        case .unspecified: break
        case .new: throw Placement.conflict("consumer generation conflict - expected \(actual) but got None")
        case .generation(let expected):
            guard expected == actual else {
                throw Placement.conflict("consumer generation conflict - expected \(actual) but got \(expected)")
            }
        }
        try connection.execute(
            """
            UPDATE consumers SET generation = generation + 1, project_id = \(change.project), user_id = \(change.user),
                consumer_type = coalesce(\(change.type), consumer_type), updated_at = \(now)
            WHERE id = \(change.consumer)::uuid
            """)
    }

    /// Adds allocations on a locked provider.
    ///
    /// - Throws: 409 if they do not fit.
    static func add(
        _ connection: Connection, consumer: String, provider id: String, _ amounts: [ResourceAmount], at now: Timestamp
    ) throws {
        let inventories = try InventoryStore.load(connection, providers: [id])[id] ?? [:]
        let used = try InventoryStore.usages(connection, providers: [id])[id] ?? [:]
        for need in amounts {
            guard let inventory = inventories[need.resourceClass] else {
                throw ResourceError.conflict(
                    "Unable to allocate inventory: Inventory for '\(need.resourceClass)' on resource provider '\(id)' invalid.")
            }
            guard inventory.admits(need.amount) else {
                throw ResourceError.conflict(
                    """
                    Unable to allocate inventory: Unable to create allocation for '\(need.resourceClass)' on \
                    resource provider '\(id)'. The requested amount would violate inventory constraints.
                    """
                )
            }
            guard need.amount + (used[need.resourceClass] ?? 0) <= inventory.capacity else {
                throw ResourceError.conflict(
                    """
                    Unable to allocate inventory: Unable to create allocation for '\(need.resourceClass)' on \
                    resource provider '\(id)'. The requested amount would exceed the capacity.
                    """
                )
            }
        }
        try insert(connection, consumer: consumer, provider: id, amounts, at: now)
    }

    static func insert(
        _ connection: Connection, consumer: String, provider id: String, _ amounts: [ResourceAmount], at now: Timestamp
    ) throws {
        try connection.execute(
            """
            INSERT INTO allocations (\(columns))
            SELECT \(consumer)::uuid, \(id)::uuid, c, n, \(now), \(now)
            FROM unnest(\(amounts.map(\.resourceClass))::text[], \(amounts.map(\.amount))::bigint[]) AS need (c, n)
            """)
    }

    /// Deletes all allocations of a consumer.
    ///
    /// - Returns: the affected providers; nil if the consumer had no allocations.
    static func remove(_ connection: Connection, of consumer: Authorized<String>, at now: Timestamp) throws -> [String]? {
        let consumer = try consumer.value(for: "placement:allocations:delete")
        return try remove(connection, consumer: consumer, at: now)
    }

    /// The same for the scheduler, and for orphaned allocations.
    static func remove(_ connection: Connection, consumer id: String, at now: Timestamp) throws -> [String]? {
        guard !(try connection.query("SELECT 1 AS one FROM consumers WHERE id = \(id)::uuid FOR UPDATE").isEmpty) else { return nil }
        let providers = try connection.query(
            "SELECT DISTINCT resource_provider_id AS id FROM allocations WHERE consumer_id = \(id)::uuid ORDER BY 1"
        ).map { try $0.string("id") }
        for provider in providers { _ = try ProviderStore.touch(connection, provider: provider, expected: nil, at: now) }
        try connection.execute("DELETE FROM consumers WHERE id = \(id)::uuid")
        return providers
    }
}
