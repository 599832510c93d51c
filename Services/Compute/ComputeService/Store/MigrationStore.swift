import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// A server that is being resized or moved.
struct ServerMove: Sendable {
    /// The migration's id, and the consumer of the server's earlier allocations.
    let migration: String
    let flavor: ServerFlavor
    let other: ServerFlavor
    /// The id of the other flavor's row.
    let otherID: String
    let project: String
    let user: String
    let power: DesiredPower
    let source: String
    /// Nil until the scheduler has decided.
    let target: String?

    /// The state in which the server is when the move has ended.
    var rest: VMState { power == .shutoff ? .stopped : .active }
}

/// The kinds of migrations, as Compute's API names them.
enum MigrationType: String {
    case resize, migration, evacuation
    case live = "live-migration"

    var change: ServerChange {
        switch self {
        case .resize: .resize
        case .migration: .migrate
        case .evacuation: .evacuate
        case .live: .liveMigrate
        }
    }

    /// The status of a migration that has just been accepted.
    var firstStatus: String {
        switch self {
        case .resize, .migration: "migrating"
        case .evacuation: "accepted"
        case .live: "queued"
        }
    }

    /// The name in the instance actions.
    var action: String { self == .live ? rawValue : change.name }
}

/// Statements for `server_migrations`, and for the flavors of servers that are resized.
enum MigrationStore {
    /// Statuses of migrations that hold allocations.
    static let open = ["migrating", "finished", "reverting"]
    /// Statuses of live migrations in progress.
    static let live = ["queued", "preparing", "running"]
    /// Statuses of evacuations in progress.
    static let evacuating = ["accepted", "pre-migrating"]
    /// Whether the server of a row of `servers` is being evacuated.
    static let isEvacuated: SQL = """
        EXISTS (SELECT 1 FROM server_migrations m WHERE m.server_id = servers.id AND m.type = 'evacuation'
            AND m.status = ANY(\(evacuating)::text[]))
        """

    /// Records an accepted move: the migration, the server's task, and the instance action.
    ///
    /// - Parameters:
    ///   - target: nil until the scheduler has decided.
    ///   - flavor: the server's after the move; nil if it keeps its flavor.
    ///   - changes: further ones of the server's row.
    /// - Returns: the migration's id. It is also the consumer of the allocations that the server had before.
    static func begin(
        _ connection: Connection, _ type: MigrationType, of server: ServerRecord, for owner: ServerOwner, target: String? = nil,
        flavor: JSONValue? = nil, setting changes: Changes = Changes(), ambient: Ambient
    ) throws -> String {
        let id = ambient.newUUID().description
        let (change, now, project) = (type.change, ambient.now, owner.caller.projectID)
        try connection.execute(
            """
            INSERT INTO server_migrations (uuid, server_id, type, status, source_host, dest_host, old_flavor, new_flavor, user_id,
                project_id, created_at, updated_at)
            SELECT \(id), s.id, \(type.rawValue), \(type.firstStatus), s.host, \(target), s.flavor,
                coalesce(\(flavor)::jsonb, s.flavor), \(owner.user), \(project), \(now), \(now)
            FROM servers s WHERE s.id = \(server.id)
            """)
        var changes = changes
        changes.set("fault", sql: "NULL")
        changes.set("task_state", change.task?.rawValue)
        try changes.apply(connection, "servers", server.id, at: now)
        try ServerActions.begin(
            connection, server: server.id, action: type.action, event: change.event, requestID: owner.requestID, user: owner.user,
            project: project, now: now)
        return id
    }

    static func set(_ connection: Connection, _ migration: String, status: String, now: Timestamp) throws {
        try connection.execute("UPDATE server_migrations SET status = \(status), updated_at = \(now) WHERE uuid = \(migration)")
    }

    /// Requests the abort of a live migration; its workflow carries it out.
    static func requestAbort(
        _ connection: Connection, _ migration: String, of server: Authorized<ServerRecord>, at now: Timestamp
    ) throws {
        let id = try server.value(for: "os_compute_api:servers:migrations:delete").id
        try connection.execute(
            """
            UPDATE server_migrations SET abort_requested = true, updated_at = \(now)
            WHERE uuid = \(migration) AND server_id = \(id)
            """)
    }

    /// The server's move that has not ended; nil for none.
    static func current(_ connection: Connection, server id: String) throws -> ServerMove? {
        let rows = try connection.query(
            """
            SELECT m.uuid, s.flavor, s.other_flavor, s.other_flavor_id, s.project_id, s.user_id, s.power,
                m.source_host, m.dest_host
            FROM servers s JOIN server_migrations m ON m.server_id = s.id AND m.status = ANY(\(open)::text[])
            WHERE s.id = \(id) AND s.other_flavor IS NOT NULL ORDER BY m.id DESC LIMIT 1
            """)
        guard let row = rows.first else { return nil }
        return ServerMove(
            migration: try row.string("uuid"), flavor: try row.value("flavor"), other: try row.value("other_flavor"),
            otherID: try row.string("other_flavor_id"), project: try row.string("project_id"), user: try row.string("user_id"),
            power: DesiredPower(rawValue: try row.string("power")) ?? .running,
            source: try row.string("source_host"), target: try row.optionalString("dest_host"))
    }

    /// The additional quota beyond `flavor` while the server may return to `other`.
    static func excess(_ other: ServerFlavor, over flavor: ServerFlavor) -> [(quota: QuotaDeclaration, amount: Int)] {
        let all: [(quota: QuotaDeclaration, amount: Int)] = [
            (ComputeQuotas.cores, other.vcpus - flavor.vcpus), (ComputeQuotas.memory, other.memoryMiB - flavor.memoryMiB),
        ]
        return all.filter { $0.amount > 0 }
    }

    /// Ends the time with two flavors; the server keeps its present one.
    ///
    /// - Returns: whether it had two.
    @discardableResult
    static func settle(_ connection: Connection, server id: String, _ move: ServerMove) throws -> Bool {
        let changed = try connection.execute(
            """
            UPDATE servers SET other_flavor = NULL, other_flavor_id = NULL, keeps_disks = false
            WHERE id = \(id) AND other_flavor IS NOT NULL
            """)
        guard changed > 0 else { return false }
        // Last, because the quota's usage row serializes the requests of the project.
        try Quota.release(connection, project: move.project, excess(move.other, over: move.flavor))
        return true
    }

    /// Switches the server to the other one of its two flavors, and orders the host to apply it. Does nothing if the server has the flavor.
    ///
    /// - Parameters:
    ///   - flavor: the id of the flavor's row.
    ///   - operation: the id of the agent's operation.
    ///   - keepsDisks: whether copies of the disks are kept.
    static func exchange(
        _ connection: Connection, server id: String, to flavor: String, operation: ServerSpec.Operation, keepsDisks: Bool,
        ambient: Ambient
    ) throws {
        let changed = try connection.execute(
            """
            UPDATE servers SET flavor = other_flavor, flavor_id = other_flavor_id, other_flavor = flavor, other_flavor_id = flavor_id,
                keeps_disks = \(keepsDisks) WHERE id = \(id) AND other_flavor_id = \(flavor) AND NOT deleted
            """)
        guard changed > 0 else { return }
        try DesiredState.change(connection, server: id, operation: try JSONValue(encoding: operation))
        try DesiredState.publish(connection, server: id, first: true, ambient: ambient)
    }

    // MARK: hosts

    static func set(_ connection: Connection, _ migration: String, target host: String, now: Timestamp) throws {
        try connection.execute("UPDATE server_migrations SET dest_host = \(host), updated_at = \(now) WHERE uuid = \(migration)")
    }

    /// Assigns the server to another host, and orders the present host to remove it. Does nothing if the server is no longer on that host.
    ///
    /// - Parameter leavesDisks: whether the present host keeps the disks, until `KeptDisks.discard`.
    static func move(
        _ connection: Connection, server id: String, from source: String, to target: String, power: DesiredPower?,
        leavesDisks: Bool = false, _ compute: Compute
    ) throws {
        let ambient = compute.ambient
        let updated = try connection.execute(
            """
            UPDATE servers SET generation = generation + 1, epoch = epoch + 1, operation = NULL
            WHERE id = \(id) AND host = \(source) AND NOT deleted
            """)
        guard updated > 0 else { return }
        if leavesDisks { try KeptDisks.keep(connection, server: id, on: source) }
        try Absences.order(connection, server: id, host: source, ambient: ambient)
        // An earlier order to remove the server from that host may still be recorded.
        try connection.execute("DELETE FROM server_absences WHERE server_id = \(id) AND host = \(target)")
        try KeptDisks.forget(connection, server: id, on: target)
        try connection.execute(
            """
            UPDATE servers SET host = \(target), availability_zone = \(ServerSteps.zone(of: target, compute)) WHERE id = \(id)
            """)
        try DesiredState.change(connection, server: id, power: power, operation: .null)
        try DesiredState.publish(connection, server: id, first: true, ambient: ambient)
    }

    /// Records how the host of a server connects to its volumes.
    ///
    /// - Parameter connections: by the ids of the volumes.
    static func set(_ connection: Connection, server id: String, connections: [String: JSONValue]) throws {
        for (volume, info) in connections {
            try connection.execute(
                "UPDATE server_volumes SET connection = \(info)::jsonb WHERE server_id = \(id) AND volume_id = \(volume)")
        }
    }

    /// Ends a migration and its instance action.
    ///
    /// - Parameter failure: nil if the migration succeeded.
    static func end(
        _ connection: Connection, _ migration: String, server id: String, status: String, action: String, failure: StepFailure? = nil,
        now: Timestamp
    ) throws {
        try set(connection, migration, status: status, now: now)
        try ServerActions.finish(connection, server: id, action: action, failure: failure, now: now)
    }

    /// Switches the server to the other one of its two flavors, without an order to the host. Does nothing if the server has the flavor.
    static func swapFlavors(_ connection: Connection, server id: String, to flavor: String) throws {
        try connection.execute(
            """
            UPDATE servers SET flavor = other_flavor, flavor_id = other_flavor_id, other_flavor = flavor, other_flavor_id = flavor_id
            WHERE id = \(id) AND other_flavor_id = \(flavor) AND NOT deleted
            """)
    }

    /// Switches the server back to the earlier one of its two flavors.
    static func returnFlavor(_ connection: Connection, server id: String, from flavor: String) throws {
        let rows = try connection.query(
            "SELECT other_flavor_id FROM servers WHERE id = \(id) AND flavor_id = \(flavor) AND other_flavor IS NOT NULL FOR UPDATE")
        guard let earlier = try rows.first?.string("other_flavor_id") else { return }
        try swapFlavors(connection, server: id, to: earlier)
    }

    /// Whether a host has confirmed that it no longer has the server, or the server is being deleted.
    static func isRemoved(_ connection: Connection, server id: String, from host: String) throws -> Bool {
        try connection.query(
            """
            SELECT 1 AS one FROM server_absences a JOIN servers s ON s.id = a.server_id
            WHERE a.server_id = \(id) AND a.host = \(host) AND s.task_state IS DISTINCT FROM 'deleting'
            """
        ).isEmpty
    }

    // MARK: reverting

    /// Reverts a resize or a move as its owner asks.
    static func revert(
        _ connection: Connection, _ context: RequestContext, _ decision: Authorized<ServerRecord>, _ compute: Compute
    ) throws {
        let id = try decision.value(for: "os_compute_api:servers:revert_resize").id
        let caller = try context.caller
        guard let move = try MigrationStore.current(connection, server: id) else {
            throw ResourceError.conflict("Instance \(id) has not been resized.")
        }
        // The target removes its disks when the server returns.
        if move.target != nil, move.target != move.source, try !Hosts.isUp(move.source, connection, compute) {
            throw ResourceError.conflict("Cannot 'revertResize' instance \(id): the host that it came from, \(move.source), is down.")
        }
        let now = compute.ambient.now
        try connection.execute(
            "UPDATE servers SET task_state = \(TaskState.resizeReverting.rawValue), updated_at = \(now) WHERE id = \(id)")
        try MigrationStore.set(connection, move.migration, status: "reverting", now: now)
        try ServerActions.begin(
            connection, server: id, action: ServerChange.revertResize.name, event: ServerChange.revertResize.event,
            requestID: context.requestID, user: caller.userID, project: caller.projectID, now: now)
        if let target = move.target, target != move.source {
            try Workflows.start(
                connection, ServerMigration(compute).reversal, subject: id,
                frame: .init(
                    migration: move.migration, source: move.source, target: target, power: move.power, oldFlavor: move.otherID),
                requestID: context.requestID, ambient: compute.ambient)
        } else {
            try Workflows.start(
                connection, ServerResize(compute).reversal, subject: id,
                frame: .init(migration: move.migration, oldFlavor: move.otherID), requestID: context.requestID,
                ambient: compute.ambient)
        }
    }

    // MARK: confirming

    /// Confirms a resize as its owner asks.
    static func confirm(
        _ connection: Connection, _ context: RequestContext, _ decision: Authorized<ServerRecord>, _ compute: Compute
    ) throws {
        let id = try decision.value(for: "os_compute_api:servers:confirm_resize").id
        let caller = try context.caller
        try confirm(connection, server: id, requestID: context.requestID, user: caller.userID, project: caller.projectID, compute)
    }

    /// Confirms a resize that has waited for long enough.
    static func confirmAutomatically(_ connection: Connection, server id: String, _ compute: Compute) throws {
        try confirm(
            connection, server: id, requestID: "req-" + compute.ambient.newUUID().description, user: "", project: nil, compute)
    }

    /// The server stays as the move left it, and on the same host. What it had before the move is released by the confirmation.
    static func stay(
        _ connection: Connection, server id: String, _ move: ServerMove, requestID: String?, _ compute: Compute
    ) throws {
        try Workflows.start(
            connection, ServerResize(compute).confirmation, subject: move.migration, requestID: requestID, ambient: compute.ambient)
        try settle(connection, server: id, move)
        if let target = move.target, target != move.source {
            try connection.execute("UPDATE servers SET root_is_copy = image IS NOT NULL WHERE id = \(id)")
        }
    }

    private static func confirm(
        _ connection: Connection, server id: String, requestID: String, user: String, project: String?, _ compute: Compute
    ) throws {
        guard let move = try current(connection, server: id) else {
            throw ResourceError.conflict("Instance \(id) has not been resized.")
        }
        try KeptDisks.adopt(connection, server: id)
        let now = compute.ambient.now
        try connection.execute(
            "UPDATE servers SET vm_state = \(move.rest.rawValue), task_state = NULL, updated_at = \(now) WHERE id = \(id)")
        try ServerActions.begin(
            connection, server: id, action: "confirmResize", event: ServerChange.confirmResize.event, requestID: requestID, user: user,
            project: project, now: now)
        try ServerActions.finish(connection, server: id, action: "confirmResize", now: now)
        try set(connection, move.migration, status: "confirmed", now: now)
        try stay(connection, server: id, move, requestID: requestID, compute)
        // The server's host and the previous host both delete the copies.
        if let target = move.target, target != move.source {
            try KeptDisks.discard(connection, server: id, ambient: compute.ambient)
        }
        try DesiredState.change(connection, server: id, operation: .null)
        try DesiredState.publish(connection, server: id, ambient: compute.ambient)
    }
}
