import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// Accepts a migration inside its transaction.
struct MigrateRequest {
    let connection: Connection
    let compute: Compute
    let owner: ServerOwner
    let host: String?

    /// - Throws: 400 for a host that does not exist, or a server that cannot be moved; 409 if its host is down, or before the upgrade is
    ///   complete.
    func run(_ decision: Authorized<ServerRecord>, _ server: ServerRecord) throws {
        let id = try decision.value(for: "os_compute_api:os-migrate-server:migrate").id
        let source = server.host ?? ""
        try MoveChecks.requireUpgraded(connection, compute.ambient)
        try MoveChecks.require(connection, id, without: [.firmware, .tpm])
        let row = try connection.query(
            """
            SELECT s.power, EXISTS (SELECT 1 FROM compute_services t WHERE t.host = \(host)) AS is_known
            FROM servers s WHERE s.id = \(id)
            """)[0]
        guard try host == nil || row.bool("is_known") else {
            throw ResourceError.badRequest("Compute host \(host?.prefix(255) ?? "") could not be found.")
        }
        guard host != source else {
            throw ResourceError.badRequest("Unable to migrate instance (\(id)) to current host (\(source)).")
        }
        guard try Hosts.isUp(source, connection, compute) else {
            throw ResourceError.conflict("Migration pre-check error: the host of instance \(id) is down.")
        }
        let checks = MoveChecks(connection, compute)
        if let reason = try checks.whatForbidsLeaving(server) { throw ResourceError.badRequest("Migration pre-check error: \(reason)") }
        if let host { try checks.requireAvailable(host) }
        if let host, try checks.unable(toKeep: id).contains(host) {
            throw ResourceError.conflict(
                "Compute host \(host) has not yet removed the leftover files of instance \(id), or its agent is of an older release.")
        }
        var changes = Changes()
        changes.set("other_flavor", sql: "flavor")
        changes.set("other_flavor_id", sql: "flavor_id")
        let migration = try MigrationStore.begin(
            connection, .migration, of: server, for: owner, setting: changes, ambient: compute.ambient)
        try Workflows.start(
            connection, ServerMigration(compute).workflow, subject: id,
            frame: ServerMigration.Frame(
                migration: migration, source: source, requested: host,
                power: try row.string("power") == DesiredPower.shutoff.rawValue ? .shutoff : .running,
                localDisks: try DiskTransferSteps.plan(connection, server: id, as: owner.mover, ambient: compute.ambient)),
            requestID: owner.requestID,
            ambient: compute.ambient)
    }
}
