import Database
import Inspections
import Kernel
import Logging

extension Identity {
    /// Runs the periodic tasks at the start and every ten minutes until cancelled: deletes revocations of expired tokens, and change
    /// notices older than a day, except the newest; marks the operators' projects, because the policy may have changed or a replica of an
    /// older release may have assigned a role.
    func runPeriodicTasks(_ log: Logger) async throws {
        try await PeriodicTask.repeating(every: .seconds(600), ambient, log, failure: "periodic tasks failed; they will be retried") {
            try await runPeriodicTasksOnce()
        }
    }

    func runPeriodicTasksOnce() async throws {
        let now = ambient.now
        let dayAgo = now + .seconds(-86_400)
        try await database.write { connection in
            try connection.execute("DELETE FROM token_revocations WHERE expires_at < \(now)")
            try connection.execute(
                "DELETE FROM identity_changes WHERE at < \(dayAgo) AND id < (SELECT max(id) FROM identity_changes)")
            try cloudProjects.lock(connection)
            try cloudProjects.mark(connection)
        }
    }
}
