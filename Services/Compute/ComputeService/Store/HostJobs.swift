import Authorization
import Contracts
import Database
import JSON
import Kernel

/// Long-running jobs of hosts on servers (`ServerJob`).
///
/// A workflow orders a job, waits for its end with `HostJobs.state`, and always ends it, also when it unwinds; the host then cancels the
/// job. While the host does not answer, the desired state with the job is sent again.
enum HostJobs {
    /// The state until the host's first report.
    static let ordered = "ordered"

    /// A host's report about a job.
    struct State: Sendable {
        /// The host that works on it.
        let host: String
        /// `ordered` until the host's first report.
        let state: String
        let phase: String?
        /// Percent of the phase.
        let progress: Int
        let error: String?
        let reason: String?

        var isDone: Bool { state == ServerJobReport.State.done.rawValue }
        /// Whether the guest is being transferred and not queued behind others. Older agents do not report the difference, and count as
        /// transferring.
        var isMoving: Bool { state == ServerJobReport.State.running.rawValue && phase != ServerJobReport.queued }

        /// Why the host gave up; nil if it has not.
        ///
        /// - Parameter message: a sentence for the tenant, without its full stop, to which the reason is added.
        func failure(_ message: String, host: String?) -> HostFailure? {
            guard state == ServerJobReport.State.failed.rawValue else { return nil }
            return HostFailure(reason: reason, details: error.map { "host \(host ?? "?"): \($0)" }, isPermanent: true)
        }
    }

    /// Orders a job from the server's host. Idempotent.
    static func order(_ connection: Connection, _ job: ServerJob, server: String, host: String, ambient: Ambient) throws {
        let added = try connection.execute(
            """
            INSERT INTO server_jobs (id, server_id, host, job, created_at)
            VALUES (\(job.id), \(server), \(host), \(try JSONValue(encoding: job))::jsonb, \(ambient.databaseNow))
            ON CONFLICT (id) DO NOTHING
            """)
        guard added > 0 else { return }
        try DesiredState.change(connection, server: server)
        try DesiredState.publish(connection, server: server, ambient: ambient)
    }

    /// Takes a job out of the desired state: a host that is still working on it cancels it. Does nothing if there is no such job.
    static func end(_ connection: Connection, _ id: String, server: String, ambient: Ambient) throws {
        guard try connection.execute("DELETE FROM server_jobs WHERE id = \(id)") > 0 else { return }
        try DesiredState.change(connection, server: server)
        try DesiredState.publish(connection, server: server, ambient: ambient)
    }

    /// Changes the order for a job. Does nothing if there is no such job.
    static func revise(
        _ connection: Connection, _ id: String, server: String, ambient: Ambient, _ body: (inout ServerJob) -> Void
    ) throws {
        guard let row = try connection.query("SELECT job FROM server_jobs WHERE id = \(id) FOR UPDATE").first else { return }
        let old: ServerJob = try row.value("job")
        var job = old
        body(&job)
        guard job != old else { return }
        try connection.execute("UPDATE server_jobs SET job = \(try JSONValue(encoding: job))::jsonb WHERE id = \(id)")
        try DesiredState.change(connection, server: server)
        try DesiredState.publish(connection, server: server, ambient: ambient)
    }

    /// Forces a live migration to complete, for an accepted request: the guest is paused or switches to post-copy.
    static func complete(
        _ connection: Connection, _ migration: String, of server: Authorized<ServerRecord>, ambient: Ambient
    ) throws {
        let id = try server.value(for: "os_compute_api:servers:migrations:force_complete").id
        try revise(connection, migration, server: id, ambient: ambient) { $0.migration?.completes = true }
    }

    /// A job as it was ordered; nil if there is no such job.
    static func job(_ connection: Connection, _ id: String) throws -> ServerJob? {
        try connection.query("SELECT job FROM server_jobs WHERE id = \(id)").first?.value("job")
    }

    /// Whether the host copies volumes of the server.
    static func copiesVolumes(_ connection: Connection, of server: String) throws -> Bool {
        try !connection.query(
            """
            SELECT 1 AS one FROM server_jobs WHERE server_id = \(server) AND job->>'kind' = \(ServerJob.copyVolumes)
                AND state NOT IN ('done', 'failed') LIMIT 1
            """
        ).isEmpty
    }

    /// Sends the server's desired state again if its host has not reported about a job for `patience`, because a report may have been lost.
    static func repeatOrder(
        _ connection: Connection, _ id: String, server: String, patience: Duration, ambient: Ambient
    ) throws {
        let before: SQL = "\(ambient.databaseNow) - \(patience)::interval"
        let silent = try connection.query(
            """
            SELECT 1 AS one FROM server_jobs j JOIN servers s ON s.id = j.server_id
            WHERE j.id = \(id) AND coalesce(j.reported_at, j.created_at) < \(before) AND s.published_at < \(before)
            """)
        if !silent.isEmpty { try DesiredState.publish(connection, server: server, ambient: ambient) }
    }

    /// Nil if there is no such job.
    static func state(_ connection: Connection, _ id: String) throws -> State? {
        try connection.query("SELECT host, state, phase, progress, error, reason FROM server_jobs WHERE id = \(id)").first.map { row in
            State(
                host: try row.string("host"), state: try row.string("state"), phase: try row.optionalString("phase"),
                progress: try row.int("progress"),
                error: try row.optionalString("error"), reason: try row.optionalString("reason"))
        }
    }

    /// Records a host's reports.
    ///
    /// - Returns: whether a job began, entered another phase or ended, so that its workflow has to continue.
    static func record(_ connection: Connection, _ reports: [ServerJobReport], server: String, host: String, ambient: Ambient) throws
        -> Bool
    {
        var hasChanged = false
        for report in reports where UUID128(report.id) != nil {
            let rows = try connection.query(
                """
                UPDATE server_jobs j SET state = \(report.state.rawValue), phase = coalesce(\(report.phase), j.phase),
                    progress = \(report.progress), error = \(report.error), reason = \(report.reason),
                    reported_at = \(ambient.databaseNow)
                FROM server_jobs old WHERE old.id = j.id AND j.id = \(report.id)::uuid AND j.server_id = \(server) AND j.host = \(host)
                    AND j.state NOT IN ('done', 'failed')
                RETURNING old.state <> j.state OR old.phase IS DISTINCT FROM j.phase AS news
                """)
            if let row = rows.first, try row.bool("news") { hasChanged = true }
            if let progress = report.migration {
                try MigrationStore.record(connection, progress, job: report.id, server: server, ambient: ambient)
            }
        }
        return hasChanged
    }

    /// The jobs of servers, for their desired states.
    static func load(_ connection: Connection, servers: [String]) throws -> [String: [ServerJob]] {
        if servers.isEmpty { return [:] }
        let rows = try connection.query(
            """
            SELECT j.server_id, j.job FROM server_jobs j JOIN servers s ON s.id = j.server_id AND s.host = j.host
            WHERE j.server_id = ANY(\(servers)::uuid[]) ORDER BY j.server_id, j.id
            """)
        var result: [String: [ServerJob]] = [:]
        for row in rows { result[try row.string("server_id"), default: []].append(try row.value("job")) }
        return result
    }
}
