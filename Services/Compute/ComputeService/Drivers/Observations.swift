import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import Workflow

/// Applies agents' reports to the servers' rows.
enum Observations {
    /// - Returns: whether the host has a server that does not belong there.
    static func record(_ connection: Connection, _ report: ObservedReport, ambient: Ambient) throws -> Bool {
        let rows = try connection.query(
            """
            SELECT vm_state, task_state, power, generation, operation->>'id' AS operation_id, host, observed_generation,
                observed_host, deleted, published_at IS NOT NULL AS published,
                \(MigrationStore.isEvacuated) AS evacuates
            FROM servers WHERE id = \(report.serverID) FOR UPDATE
            """)
        guard let row = rows.first else { return report.power != .absent }
        if try Arrivals.record(connection, report) {
            Workflows.wake(connection, service: Compute.service, subject: report.serverID)
            return false
        }
        let isHere = try row.optionalString("host") == report.host && row.bool("published") && !row.bool("deleted")
        guard isHere else { return try observeStray(connection, report, ambient: ambient) }
        // A report about jobs that have ended is valid whatever its generation.
        let hasJobNews = try HostJobs.record(
            connection, report.jobs ?? [], server: report.serverID, host: report.host, ambient: ambient)
        if hasJobNews { Workflows.wake(connection, service: Compute.service, subject: report.serverID) }
        // Ignore late reports of an earlier generation.
        if try row.optionalString("observed_host") == report.host,
            try report.generation < row.int("observed_generation")
        {
            return false
        }
        let powerState = PowerState(reported: report.power).rawValue
        try connection.execute(
            """
            UPDATE servers SET observed_generation = \(report.generation), observed_power = \(report.power.rawValue),
                observed_state = \(report.state.rawValue), observed_error = \(report.error),
                observed_reason = \(report.reason),
                observed_permanent = \(report.permanent), observed_operation = \(report.operationID),
                observed_host = \(report.host), observed_at = \(ambient.now), power_state = \(powerState),
                metadata_ready = \(report.metadataReady)
            WHERE id = \(report.serverID)
            """)
        if report.state == .failed { try KeptDisks.needStart(connection, server: report.serverID) }
        guard let vmState = VMState(rawValue: try row.string("vm_state")),
            let power = DesiredPower(rawValue: try row.string("power"))
        else { return false }
        let task = try row.optionalString("task_state").flatMap(TaskState.init(rawValue:))
        let server = ObservedServer(
            vmState: vmState, task: task, desiredPower: power, generation: try row.int("generation"),
            operationID: try row.optionalString("operation_id"))
        let observation = Observation(
            generation: report.generation, power: report.power, applied: report.state == .applied, permanent: report.permanent,
            error: report.error, operationID: report.operationID)
        // An evacuation is ended by its workflow.
        if try !row.bool("evacuates") {
            try apply(connection, server.judge(observation), report.serverID, task: task, ambient: ambient)
        }
        // Notify only for tasks that wait for their host, because a commit with `NOTIFY` delays other commits.
        if vmState == .building || task.map(TaskState.waitsForHost.contains) == true {
            Workflows.wake(connection, service: Compute.service, subject: report.serverID)
        }
        return false
    }

    private static func apply(
        _ connection: Connection, _ outcome: ObservationOutcome, _ id: String, task: TaskState?, ambient: Ambient
    ) throws {
        let now = ambient.now
        switch outcome {
        case .noted: return
        case .finished(let state):
            try settle(connection, id, state, now: now)
            if let action = task?.actionName {
                try ServerActions.finish(connection, server: id, action: action, now: now)
            }
            if state == .softDeleted { try ServerQuota.release(connection, server: id) }
        case .turnedOff:
            try DesiredState.change(connection, server: id, power: .shutoff)
            try DesiredState.publish(connection, server: id, ambient: ambient)
        case .broken(let error): try endRebuild(connection, id, error: error, ambient: ambient)
        case .failed(let state, let error):
            try endTask(connection, id, state, task: task, error: error, ambient: ambient)
        case .stoppedItself:
            if let action = task?.actionName {
                try ServerActions.finish(connection, server: id, action: action, now: now)
            }
            try stop(connection, id, ambient: ambient)
        }
    }

    /// A guest that stopped by itself stays off.
    static func stop(_ connection: Connection, _ id: String, ambient: Ambient) throws {
        let now = ambient.now
        try DesiredState.change(connection, server: id, power: .shutoff)
        try settle(connection, id, .stopped, now: now)
        try DesiredState.publish(connection, server: id, ambient: ambient)
        try ServerActions.begin(
            connection, server: id, action: "stop", event: "compute__sync_instance_power_state",
            requestID: "req-" + ambient.newUUID().description, user: "", project: nil, now: now)
        try ServerActions.finish(connection, server: id, action: "stop", now: now)
    }

    /// Ends a power task that failed or timed out; the server takes the state that its host reports.
    static func giveUp(
        _ connection: Connection, _ id: String, power: ReportedPower, task: TaskState?, error: String, ambient: Ambient
    ) throws {
        if task == .rebuilding { return try endRebuild(connection, id, error: error, ambient: ambient) }
        try endTask(connection, id, VMState(reportedPower: power), task: task, error: error, ambient: ambient)
    }

    /// Ends a rebuild that failed. The server stays off until it is rebuilt again: its disks may contain neither system completely.
    private static func endRebuild(_ connection: Connection, _ id: String, error: String, ambient: Ambient) throws {
        let now = ambient.now
        try DesiredState.change(connection, server: id, power: .shutoff, operation: .null)
        let row = try connection.query("SELECT host, observed_reason FROM servers WHERE id = \(id)")[0]
        let reason = try row.optionalString("observed_reason").map { "The host could not rebuild the server: \($0)." }
        let fault: JSONValue = [
            "code": 500, "created": .string(now.iso8601), "message": .string(reason ?? "The host could not rebuild the server."),
            "details": .string("host \(try row.optionalString("host") ?? "?"): \(error)"),
        ]
        try connection.execute("UPDATE servers SET fault = \(fault)::jsonb WHERE id = \(id)")
        try settle(connection, id, .error, now: now)
        try DesiredState.publish(connection, server: id, ambient: ambient)
        try ServerActions.finish(connection, server: id, action: "rebuild", error: error, now: now)
    }

    /// Reset the desired power too; otherwise the next report would retry the change.
    private static func endTask(
        _ connection: Connection, _ id: String, _ state: VMState, task: TaskState?, error: String, ambient: Ambient
    ) throws {
        // After a failed rescue the server has its own system again.
        if task == .rescuing { try connection.execute("UPDATE servers SET rescue = NULL WHERE id = \(id)") }
        try DesiredState.change(connection, server: id, power: state.restingPower, operation: .null)
        try settle(connection, id, state, now: ambient.now)
        try DesiredState.publish(connection, server: id, ambient: ambient)
        if let action = task?.actionName {
            try ServerActions.finish(connection, server: id, action: action, error: error, now: ambient.now)
        }
    }

    private static func settle(_ connection: Connection, _ id: String, _ state: VMState, now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE servers SET vm_state = \(state.rawValue), task_state = NULL, updated_at = \(now)
            WHERE id = \(id) AND NOT deleted
            """)
    }

    /// A report from a host on which the server should not be.
    private static func observeStray(_ connection: Connection, _ report: ObservedReport, ambient: Ambient) throws -> Bool {
        if report.power == .absent {
            try connection.execute(
                """
                DELETE FROM server_absences WHERE server_id = \(report.serverID) AND host = \(report.host)
                    AND generation <= \(report.generation)
                """)
            return false
        }
        return try removeStray(connection, server: report.serverID, host: report.host, ambient: ambient)
    }

    /// Orders a host to remove a server that was deleted or belongs to another host.
    ///
    /// - Returns: whether the order was sent.
    @discardableResult
    static func removeStray(_ connection: Connection, server: String, host: String, ambient: Ambient) throws -> Bool {
        let known = try connection.query("SELECT 1 AS one FROM server_absences WHERE server_id = \(server) AND host = \(host)")
        guard known.isEmpty else { return false }
        let row = try connection.query("SELECT deleted, host FROM servers WHERE id = \(server)")[0]
        // A server that was not yet published is still being built.
        guard try row.bool("deleted") || (row.optionalString("host") ?? host) != host else { return false }
        try connection.execute("UPDATE servers SET generation = generation + 1, epoch = epoch + 1 WHERE id = \(server)")
        try Absences.order(connection, server: server, host: host, ambient: ambient)
        return true
    }
}

extension TaskState {
    /// The action whose record ends with this task.
    var actionName: String? {
        switch self {
        case .poweringOff: "stop"
        case .poweringOn: "start"
        case .rebooting, .rebootingHard: "reboot"
        case .pausing: "pause"
        case .unpausing: "unpause"
        case .suspending: "suspend"
        case .resuming: "resume"
        case .softDeleting: "delete"
        case .restoring: "restore"
        case .rebuilding: "rebuild"
        case .rescuing: "rescue"
        case .unrescuing: "unrescue"
        case .scheduling, .networking, .blockDeviceMapping, .spawning, .deleting, .resizePrep, .resizeMigrating, .resizeFinish,
            .resizeReverting, .migrating, .imageSnapshotPending, .imageSnapshot, .imageBackup, .imagePendingUpload, .imageUploading,
            .shelving,
            .shelvingImagePendingUpload, .shelvingImageUploading, .shelvingOffloading, .unshelving:
            nil
        }
    }
}
