import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// Accepts an evacuation inside its transaction.
struct EvacuateRequest {
    let connection: Connection
    let compute: Compute
    let owner: ServerOwner
    let host: String?
    /// The request's `onSharedStorage`; nil from 2.14 on.
    let onSharedStorage: Bool?
    /// Whether the server stays off at its new host.
    let staysOff: Bool

    /// - Throws: 400 if the host is in use, or for a host that cannot take the server.
    func run(_ decision: Authorized<ServerRecord>, _ server: ServerRecord) throws {
        let id = try decision.value(for: ServerEvacuateRoutes.action).id
        let source = server.host ?? ""
        try MoveChecks.requireUpgraded(connection, compute.ambient)
        try MoveChecks.require(connection, id, without: [.tpm])
        guard try !Hosts.isUp(source, connection, compute) else {
            throw ResourceError.badRequest("Compute service of \(source) is still in use.")
        }
        if try onSharedStorage == true && MoveChecks.hasLocalDisks(connection, id) {
            throw ResourceError.badRequest("Invalid state of instance files on shared storage: instance \(id) has local disks.")
        }
        if let host { try requireTarget(host, id, source) }
        let migration = try MigrationStore.begin(connection, .evacuation, of: server, for: owner, ambient: compute.ambient)
        let row = try connection.query("SELECT root_image, root_is_copy FROM servers WHERE id = \(id)")[0]
        let isOff = staysOff || server.vmState == VMState.stopped.rawValue
        try Workflows.start(
            connection, ServerEvacuation(compute).workflow, subject: id,
            frame: ServerEvacuation.Frame(
                migration: migration, source: source, requested: host, power: isOff ? .shutoff : .running,
                formerPower: server.vmState == VMState.stopped.rawValue ? .shutoff : .running,
                rootImage: try row.optionalJSON("root_image"), rootIsCopy: try row.bool("root_is_copy")
            ), requestID: owner.requestID, ambient: compute.ambient)
    }

    private func requireTarget(_ host: String, _ id: String, _ source: String) throws {
        guard host != source else {
            throw ResourceError.badRequest("The target host can't be the same one.")
        }
        let row = try connection.query(
            "SELECT t.enabled, \(Hosts.isUp("t", compute)) AS is_up FROM compute_services t WHERE t.host = \(host)"
        ).first
        guard let row else { throw ResourceError.badRequest("Compute host \(host.prefix(255)) not found.") }
        guard try row.bool("is_up") else {
            throw ResourceError.badRequest("Compute service of \(host) is unavailable at this time.")
        }
        guard try row.bool("enabled") else { throw ResourceError.badRequest("Compute service of \(host) is disabled.") }
    }
}
