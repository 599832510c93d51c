import ComputeCore
import Contracts
import Database
import Inspections
import JSON
import Kernel
import Logging
import ServiceCatalog
import Workflow

/// Compute's periodic tasks: resend desired states that a host has not applied or that are older than its ports, remove leftovers, and
/// end tasks that timed out.
package struct ComputePeriodicTasks: Sendable {
    private let compute: Compute

    private static let interval: Duration = .seconds(10)
    /// A desired state that a host has not applied after this time is sent again.
    private static let patience: Duration = .seconds(15)
    /// How long a host may take for a power task.
    private static let taskDeadline: Duration = .seconds(900)
    private static let batchMax = 200

    package init(_ compute: Compute) { self.compute = compute }

    /// Runs until the task is cancelled.
    package func run() async throws {
        try await PeriodicTask(
            "compute", every: ComputePeriodicTasks.interval, database: compute.database, ambient: compute.ambient, log: compute.log
        ) {
            try await runOnce()
            return true
        }.run()
    }

    /// Runs all tasks once.
    ///
    /// - Returns: how many messages were sent again and records removed or repaired.
    @discardableResult
    package func runOnce() async throws -> Int {
        try await PeriodicTask.all([
            resend, resendPorts, resendAbsences, removeLeftPorts, dropLostInterfaces, endTasks, confirmResizes, forget,
            forgetConsoleTokens, reclaim, offload, discardDisks,
            { try await VolumeExtension(compute).begin(limit: ComputePeriodicTasks.batchMax) },
            {
                try await Repairs.recount(
                    ComputeQuotas.all, service: Compute.service, compute.database, at: compute.ambient.now, compute.log)
            },
        ])
    }

    /// Deletes servers whose time for a restore has passed.
    private func reclaim() async throws -> Int {
        let ambient = compute.ambient
        let deletion = ServerDeletion(compute)
        return try await compute.database.write { connection in
            let ids = try connection.query(
                """
                SELECT id FROM servers WHERE vm_state = 'soft-delete' AND task_state IS NULL AND reclaim_at <= \(ambient.databaseNow)
                ORDER BY reclaim_at LIMIT \(ComputePeriodicTasks.batchMax) FOR UPDATE SKIP LOCKED
                """
            ).map { try $0.string("id") }
            return try each(connection, ids) { id in
                let request = "req-" + ambient.newUUID().description
                try deletion.begin(connection, try ServerRecord.find(connection, id), ActionOrigin(requestID: request))
            }
        }
    }

    /// Deletes servers that were deleted long ago, and the records of their actions.
    private func forget() async throws -> Int {
        let before = compute.ambient.now + .microseconds(-compute.settings.keepDeleted.microseconds)
        return try await compute.database.write { connection in
            let ids = try connection.query(
                """
                DELETE FROM servers WHERE id IN (SELECT id FROM servers WHERE deleted AND updated_at < \(before)
                    ORDER BY updated_at LIMIT \(ComputePeriodicTasks.batchMax) FOR UPDATE SKIP LOCKED) RETURNING id
                """
            ).map { try $0.string("id") }
            if !ids.isEmpty {
                try connection.execute("DELETE FROM server_actions WHERE server_id = ANY(\(ids)::uuid[])")
                try connection.execute("DELETE FROM server_migrations WHERE server_id = ANY(\(ids)::uuid[])")
            }
            return ids.count
        }
    }

    /// Confirms resizes that have waited longer than the operator allows. Not on a host that is down: confirming deletes the disks that
    /// the other host keeps, which are then the only ones with data.
    private func confirmResizes() async throws -> Int {
        guard let window = compute.settings.resizeConfirmWindow else { return 0 }
        let compute = compute
        let before: SQL = "\(compute.ambient.databaseNow) - \(window)::interval"
        return try await compute.database.write { connection in
            let ids = try connection.query(
                """
                SELECT id FROM servers WHERE vm_state = 'resized' AND task_state IS NULL AND NOT deleted AND updated_at < \(before)
                AND locked_by IS NULL
                AND EXISTS (SELECT 1 FROM compute_services t WHERE t.host = servers.host AND \(Hosts.isUp("t", compute)))
                ORDER BY updated_at LIMIT \(ComputePeriodicTasks.batchMax) FOR UPDATE SKIP LOCKED
                """
            ).map { try $0.string("id") }
            return try each(connection, ids) { try MigrationStore.confirmAutomatically(connection, server: $0, compute) }
        }
    }

    private func forgetConsoleTokens() async throws -> Int {
        let now = compute.ambient.now
        return try await compute.database.write {
            try ConsoleTokenStore.forget($0, before: now, limit: ComputePeriodicTasks.batchMax)
        }
    }

    /// Ends power tasks that the host did not finish in time, except those of evacuations, whose workflow has a deadline of its own; the
    /// server takes the power state that the host last reported.
    private func endTasks() async throws -> Int {
        let ambient = compute.ambient
        let before: SQL = "\(ambient.databaseNow) - \(ComputePeriodicTasks.taskDeadline)::interval"
        return try await compute.database.write { connection in
            let rows = try connection.query(
                """
                SELECT id, task_state, observed_power FROM servers WHERE NOT deleted AND updated_at < \(before)
                AND task_state = ANY(\(TaskState.ofPower.map(\.rawValue))::text[])
                AND NOT \(MigrationStore.isEvacuated) AND \(HostProgress.standsStill(ambient))
                LIMIT \(ComputePeriodicTasks.batchMax) FOR UPDATE SKIP LOCKED
                """)
            for row in rows {
                let task = try row.optionalString("task_state").flatMap(TaskState.init(rawValue:))
                try Observations.giveUp(
                    connection, try row.string("id"), power: ReportedPower(rawValue: row.optionalString("observed_power") ?? ""),
                    task: task,
                    error: "The host did not do it within \(ComputePeriodicTasks.taskDeadline.components.seconds) s.", ambient: ambient)
            }
            return rows.count
        }
    }

    /// Offloads servers that have been shelved for longer than the operator allows.
    private func offload() async throws -> Int {
        let seconds = compute.settings.shelvedOffloadTime
        guard seconds >= 0 else { return 0 }
        let ambient = compute.ambient
        let workflow = ServerOffload(compute).workflow
        let before: SQL = "\(ambient.databaseNow) - \(Duration.seconds(seconds))::interval"
        return try await compute.database.write { connection in
            let ids = try connection.query(
                """
                SELECT s.id FROM servers s WHERE s.vm_state = 'shelved' AND s.task_state IS NULL AND s.shelved_at < \(before)
                AND \(Workflows.isIdle("s.id")) LIMIT \(ComputePeriodicTasks.batchMax) FOR UPDATE SKIP LOCKED
                """
            ).map { try $0.string("id") }
            return try each(connection, ids) { id in
                try connection.execute(
                    "UPDATE servers SET task_state = 'shelving_offloading', updated_at = \(ambient.now) WHERE id = \(id)")
                try Workflows.start(connection, workflow, subject: id, requestID: nil, ambient: ambient)
            }
        }
    }

    /// Removes disks that hosts have kept of servers that have since started elsewhere.
    private func discardDisks() async throws -> Int {
        let ambient = compute.ambient
        return try await compute.database.write { connection in
            let ids = try KeptDisks.unneeded(connection, limit: ComputePeriodicTasks.batchMax)
            return try each(connection, ids) { try KeptDisks.discardIfStarted(connection, server: $0, ambient: ambient) }
        }
    }

    /// Sends the desired state again for servers whose host has not applied the newest generation.
    private func resend() async throws -> Int {
        let ambient = compute.ambient
        let before: SQL = "\(ambient.databaseNow) - \(ComputePeriodicTasks.patience)::interval"
        return try await compute.database.write { connection in
            let ids = try connection.query(
                """
                SELECT s.id FROM servers s WHERE NOT s.deleted AND s.host IS NOT NULL
                AND (s.observed_generation < s.generation OR s.observed_state = 'failed') AND s.published_at < \(before)
                AND NOT (s.observed_permanent AND s.observed_generation >= s.generation)
                ORDER BY s.published_at LIMIT \(ComputePeriodicTasks.batchMax) FOR UPDATE SKIP LOCKED
                """
            ).map { try $0.string("id") }
            return try each(connection, ids) { try DesiredState.publish(connection, server: $0, ambient: ambient) }
        }
    }

    /// Runs an operation for each of the servers. A server for which it fails is left unchanged and logged, and does not hold up the
    /// others.
    ///
    /// - Returns: the number of servers for which it succeeded.
    private func each(_ connection: Connection, _ servers: [String], _ body: (String) throws -> Void) throws -> Int {
        var done = 0
        for id in servers {
            do {
                try connection.savepoint { _ in try body(id) }
                done += 1
            } catch  where (error as? DatabaseError).map(\.isAboutData) ?? true {
                compute.log.error("a periodic task failed for a server", metadata: ["server": "\(id)", "error": "\(error)"])
            }
        }
        return done
    }

    /// Sends the desired state again for servers whose ports were changed, if Network's message about that was lost.
    private func resendPorts() async throws -> Int {
        let ambient = compute.ambient
        let before: SQL = "\(ambient.databaseNow) - \(ComputePeriodicTasks.patience)::interval"
        let servers = try await compute.database.read {
            try DesiredState.serversWithUnsentPorts($0, changedBefore: before, limit: ComputePeriodicTasks.batchMax)
        }
        guard !servers.isEmpty else { return 0 }
        let unreadable = try await compute.database.write { try DesiredState.portsChanged($0, servers: servers, ambient: ambient) }
        compute.report(unreadable: unreadable)
        let sent = servers.filter { unreadable[$0] == nil }
        guard !sent.isEmpty else { return 0 }
        compute.log.warning(
            "changes of ports had not been sent to the hosts of their servers",
            metadata: ["servers": "\(sent.joined(separator: " "))"])
        return sent.count
    }

    private func resendAbsences() async throws -> Int {
        let ambient = compute.ambient
        let before: SQL = "\(ambient.databaseNow) - \(ComputePeriodicTasks.patience * 2)::interval"
        return try await compute.database.write { connection in
            let rows = try connection.query(
                """
                UPDATE server_absences SET published_at = \(ambient.databaseNow) WHERE (server_id, host) IN (
                    SELECT server_id, host FROM server_absences WHERE published_at < \(before)
                    ORDER BY published_at LIMIT \(ComputePeriodicTasks.batchMax) FOR UPDATE SKIP LOCKED)
                RETURNING host, desired
                """)
            for row in rows {
                try DesiredState.send(
                    connection, Enclosed(document: try row.json("desired")), host: try row.string("host"), ambient: ambient)
            }
            return rows.count
        }
    }

    /// Removes ports of deleted servers: a process that died may have requested them.
    private func removeLeftPorts() async throws -> Int {
        let ports = try await compute.database.read { connection in
            try connection.query(
                """
                SELECT p.id, s.project_id, s.user_id FROM published_ports p JOIN servers s ON s.id::text = p.device_id
                WHERE p.device_owner LIKE 'compute:%' AND s.deleted AND p.project_id = s.project_id
                AND \(Workflows.isIdle("s.id"))
                LIMIT \(ComputePeriodicTasks.batchMax)
                """
            ).map { (id: try $0.string("id"), subject: try ServerSteps.subject($0)) }
        }
        return try await PeriodicTask.all(ports.map { port in { try await removeLeftPort(port.id, as: port.subject) } })
    }

    private func removeLeftPort(_ id: String, as subject: ActingSubject) async throws -> Int {
        try await compute.clients.network.deletePort(id, as: subject)
        let finding = Finding(
            invariant: "I5", rule: "a port goes with its server", subject: id, words: "port \(id) had outlived its server")
        let now = compute.ambient.now
        try await compute.database.write { try Repairs.record($0, service: Compute.service, [finding], at: now) }
        Repairs.log(compute.log, [finding])
        return 1
    }

    /// Removes interfaces whose port was deleted; the host unplugs them.
    private func dropLostInterfaces() async throws -> Int {
        let ambient = compute.ambient
        let lost = try await compute.database.write { connection in
            let rows = try connection.query(
                """
                DELETE FROM server_interfaces WHERE port_id IN (
                    SELECT i.port_id FROM server_interfaces i JOIN servers s ON s.id = i.server_id
                    WHERE i.state = 'attached' AND NOT s.deleted AND NOT EXISTS (SELECT 1 FROM published_ports p WHERE p.id = i.port_id)
                    AND \(Workflows.isIdle("s.id"))
                    ORDER BY i.port_id LIMIT \(ComputePeriodicTasks.batchMax) FOR UPDATE OF i SKIP LOCKED)
                RETURNING port_id, server_id
                """
            ).map { (port: try $0.string("port_id"), server: try $0.string("server_id")) }
            for server in Set(rows.map(\.server)).sorted() {
                try DesiredState.change(connection, server: server)
                try DesiredState.publish(connection, server: server, ambient: ambient)
            }
            return rows
        }
        for (port, server) in lost {
            compute.log.warning("a server's port was deleted", metadata: ["server": "\(server)", "port": "\(port)"])
        }
        return lost.count
    }
}

extension DatabaseError {
    /// PostgreSQL refused what the statement does to its rows: data exceptions, broken constraints and errors that triggers raise. Such an
    /// error does not affect other rows, and the transaction can continue after the savepoint is rolled back.
    fileprivate var isAboutData: Bool { ["22", "23", "P0"].contains(String(sqlState.prefix(2))) }
}
