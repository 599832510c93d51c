import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Settings
import WebAPI
import Workflow

/// How long deleted servers can be restored.
package struct ReclaimIntervals: Sendable {
    private let fallback: Duration
    private let projects: [String: Duration]

    /// Servers are deleted at once.
    package init() { (fallback, projects) = (.zero, [:]) }

    /// - Parameters:
    ///   - fallback: the interval of projects that are not in `projects`.
    ///   - projects: `PROJECT_ID=DURATION` each.
    /// - Throws: 400 for text in another format.
    package init(_ fallback: Duration, projects: [String]) throws {
        self.fallback = fallback
        self.projects = try projects.reduce(into: [:]) { result, text in
            let parts = text.split(separator: "=", maxSplits: 1).map { String($0).trimmedSpaces }
            guard parts.count == 2, let interval = DurationText.parse(parts[1]) else {
                throw ResourceError.badRequest(
                    "the setting compute.reclaim_instance_intervals has '\(text)'; each item must be PROJECT_ID=DURATION, such as 5f0c=7d")
            }
            result[parts[0]] = interval
        }
    }

    /// Nil for a project whose servers are deleted at once.
    func of(_ project: String) -> Duration? {
        let interval = projects[project] ?? fallback
        return interval > .zero ? interval : nil
    }
}

/// Starts the deletion of servers.
struct ServerDeletion: Sendable {
    private let compute: Compute
    private let workflow: Workflow<NoFrame>

    init(_ compute: Compute) {
        self.compute = compute
        workflow = ServerDelete(compute).workflow
    }

    /// Stops a server and keeps it for a restore, if its project has an interval for that.
    ///
    /// As in Nova, servers that never ran are not kept. Servers in a state without a host that could stop and restart them are not kept
    /// either.
    ///
    /// - Parameter current: locked.
    /// - Returns: whether the server is kept.
    /// - Throws: 409 while another action on a server that would be kept is in progress.
    func keep(
        _ connection: Connection, _ decision: Authorized<ServerRecord>, _ current: ServerRecord, _ origin: ActionOrigin
    ) throws -> Bool {
        try decision.value(for: "os_compute_api:servers:delete")
        let states = [VMState.softDeleted] + PowerAction.softDelete.from
        guard let interval = compute.settings.reclaim.of(current.project), current.host != nil,
            states.map(\.rawValue).contains(current.vmState), current.taskState != TaskState.deleting.rawValue
        else { return false }
        if current.vmState == VMState.softDeleted.rawValue, current.taskState == nil { return true }
        if current.taskState == TaskState.softDeleting.rawValue { return true }
        try current.require(states: PowerAction.softDelete.from.map(\.rawValue), for: "delete")
        let launched = try connection.query("SELECT 1 AS one FROM servers WHERE id = \(current.id) AND launched_at IS NOT NULL")
        guard !launched.isEmpty else { return false }
        let ambient = compute.ambient
        try PowerChange.begin(connection, current, .softDelete, origin, ambient: ambient)
        try connection.execute(
            "UPDATE servers SET reclaim_at = \(ambient.databaseNow) + \(interval)::interval WHERE id = \(current.id)")
        return true
    }

    /// Deletes a server permanently. Does nothing if its deletion is in progress.
    ///
    /// - Parameter current: locked.
    func begin(
        _ connection: Connection, _ decision: Authorized<ServerRecord>, _ current: ServerRecord, _ origin: ActionOrigin
    ) throws {
        try decision.value(for: "os_compute_api:servers:delete", "os_compute_api:os-deferred-delete:force")
        try begin(connection, current, origin)
    }

    /// The same for a server whose time for a restore has passed.
    func begin(_ connection: Connection, _ current: ServerRecord, _ origin: ActionOrigin) throws {
        guard current.taskState != TaskState.deleting.rawValue else { return }
        let ambient = compute.ambient
        if let action = current.taskState.flatMap(TaskState.init(rawValue:))?.actionName {
            try ServerActions.finish(
                connection, server: current.id, action: action, error: "The server was deleted in the meantime.", now: ambient.now)
        }
        try connection.execute(
            "UPDATE servers SET task_state = 'deleting', updated_at = \(ambient.now) WHERE id = \(current.id)")
        try ServerActions.begin(
            connection, server: current.id, action: "delete", event: "compute_terminate_instance", requestID: origin.requestID,
            user: origin.user,
            project: origin.project, now: ambient.now)
        try Workflows.startOrIntend(
            connection, workflow, intent: ServerCreate.deleteIntent, subject: current.id, requestID: origin.requestID, ambient: ambient)
        // The interrupted restore had reserved the quota again.
        if current.vmState == VMState.softDeleted.rawValue, current.taskState == TaskState.restoring.rawValue {
            try ServerQuota.release(connection, server: current.id)
        }
    }
}

/// The quota that a server uses: one instance, its processors and its memory.
enum ServerQuota {
    private static func amounts(
        _ connection: Connection, server: String
    ) throws -> (project: String, amounts: [(quota: QuotaDeclaration, amount: Int)])? {
        guard let row = try connection.query("SELECT project_id, flavor, other_flavor FROM servers WHERE id = \(server)").first else {
            return nil
        }
        // A server that is being resized counts with the larger flavor.
        let flavors = [try row.json("flavor"), try row.optionalJSON("other_flavor")].compactMap { $0 }
        func most(_ amount: String) -> Int { flavors.compactMap { $0[amount]?.intValue }.max() ?? 0 }
        return (
            try row.string("project_id"),
            [
                (ComputeQuotas.instances, 1), (ComputeQuotas.cores, most("vcpus")), (ComputeQuotas.memory, most("ram")),
            ]
        )
    }

    /// Call this last, because the quota's usage row serializes the requests of the project.
    static func release(_ connection: Connection, server: String) throws {
        guard let (project, amounts) = try amounts(connection, server: server) else { return }
        try Quota.release(connection, project: project, amounts)
    }

    /// - Throws: 403 if the quota is used up.
    static func reserve(_ connection: Connection, server: String, _ quota: Quota) throws {
        guard let (project, amounts) = try amounts(connection, server: server) else { return }
        try quota.reserve(connection, project: project, amounts)
    }
}
