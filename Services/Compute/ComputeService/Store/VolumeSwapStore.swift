import Authorization
import ComputeCore
import Database
import JSON
import Kernel
import WebAPI
import Workflow

/// Accepts a request to swap a server's volume.
enum VolumeSwapStore {
    static let action = "os_compute_api:os-volumes-attachments:swap"
    /// The guest runs, so that its host can copy the volume under it.
    private static let states: [VMState] = [.active, .paused]

    /// Checks both volumes, and records that one is to take the place of the other.
    ///
    /// - Throws: 404 without the old volume, 400 for volumes that cannot be swapped, 409 for a server that does something else.
    static func begin(
        _ connection: Connection, _ context: RequestContext, _ decision: Authorized<ServerRecord>, old: String, new: String,
        ambient: Ambient
    ) throws -> VolumeSwap.Swap {
        let id = try decision.value(for: action).id
        let server = try ServerRecord.find(connection, id, lock: true)
        try server.requireUnlocked(context)
        try server.require(states: states.map(\.rawValue), for: "swap_volume")
        guard try !Workflows.isActive(connection, subject: id) else {
            throw ResourceError.conflict("Cannot 'swap_volume' instance \(id) while an earlier operation on it is ending")
        }
        let size = try check(connection, server, old: old, new: new)
        guard let attachment = try VolumeAttachmentStore.lock(connection, volume: old, of: id), attachment.state == "attached" else {
            throw ResourceError.conflict("Volume \(old) is being attached or detached. Try again when it has finished.")
        }
        let row = try connection.query(
            """
            UPDATE server_volumes SET swap_volume_id = \(new) WHERE id = \(attachment.id) AND swap_volume_id IS NULL
            RETURNING device, connection
            """
        ).first
        guard let row else { throw ResourceError.conflict("Volume \(old) is already being swapped for another one.") }
        let place = try row.optionalJSON("connection")
        guard place?["driver"] == "file", place?["read_only"]?.boolValue != true else {
            throw ResourceError.badRequest("Invalid volume: Volume \(old) is attached read-only and cannot be swapped.")
        }
        return VolumeSwap.Swap(
            row: attachment.id, old: old, new: new, device: try row.string("device"), size: size, job: ambient.newUUID().description)
    }

    /// - Returns: GiB of the new volume.
    private static func check(_ connection: Connection, _ server: ServerRecord, old: String, new: String) throws -> Int {
        let rows = try connection.query(
            """
            SELECT v.id, v.size, v.status, v.multiattach,
                (SELECT count(*) FROM published_volume_attachments a WHERE a.volume_id = v.id) AS attachments,
                EXISTS (SELECT 1 FROM server_volumes s WHERE s.volume_id = v.id AND s.server_id = \(server.id)) AS ours
            FROM published_volumes v WHERE v.id IN (\(old), \(new)) AND v.project_id = \(server.project)
            """
        ).reduce(into: [String: Row]()) { $0[try $1.string("id")] = $1 }
        guard let present = rows[old] else { throw ResourceError.notFound("Volume \(old) could not be found.") }
        guard let wanted = rows[new] else { throw ResourceError.badRequest("Volume \(new) could not be found.") }
        guard try present.bool("ours") else {
            throw ResourceError.badRequest("Invalid volume: Old volume is attached to a different instance.")
        }
        guard try wanted.int("attachments") == 0 else {
            throw ResourceError.badRequest("Invalid volume: New volume must be detached in order to swap.")
        }
        let status = try wanted.string("status")
        guard status == "available" else {
            throw ResourceError.badRequest("Invalid volume: volume '\(new)' status must be 'available'. Currently in '\(status)' status.")
        }
        guard try wanted.int("size") >= present.int("size") else {
            throw ResourceError.badRequest("Invalid volume: New volume must be the same size or larger.")
        }
        guard try present.int("attachments") <= 1 else {
            throw ResourceError.badRequest(
                "Swapping multi-attach volumes with more than one read/write attachment is not supported.")
        }
        guard try !present.bool("multiattach"), try !wanted.bool("multiattach") else {
            throw ResourceError.badRequest("Invalid volume: Volumes that several servers can attach cannot be swapped.")
        }
        guard try !ServerVolumes.isBeingCopied(connection, old) else {
            throw ResourceError.conflict("A snapshot of volume \(old) is in progress. Try again when it is complete.")
        }
        return try wanted.int("size")
    }
}
