import Authorization
import ComputeCore
import Contracts
import Database
import GuestKeys
import JSON
import Kernel
import WebAPI

/// The statements about the volumes of servers. Workflows connect and disconnect them.
enum VolumeAttachmentStore {
    private static let action = "os_compute_api:os-volumes-attachments:"
    /// The maximum number of volumes of a server.
    private static let volumesMax = 25

    /// A volume to attach.
    struct Draft: Sendable {
        /// The id of the new row.
        let id: String
        let volume: String
        let deletesOnTermination: Bool
        let tag: String?
        /// Whether the request's version supports multiattach volumes.
        let knowsMultiattach: Bool
    }

    /// The row of an attachment.
    struct Attachment: Sendable {
        let id: String
        let isRoot: Bool
        /// `attaching`, `attached` or `detaching`.
        let state: String
        /// Whether another volume is about to take its place.
        let isSwapped: Bool
    }

    /// Disks on IDE and SATA cannot be plugged or unplugged while the guest runs.
    ///
    /// - Throws: 409 for a server with such disks that is not off.
    @discardableResult
    static func requireHotplug(_ connection: Connection, _ server: ServerRecord) throws -> GuestHardware {
        let (flavor, properties) = try ServerStore.hardware(connection, of: server.id)
        let hardware = GuestHardware(flavor, properties)
        let isOff = [VMState.stopped, .shelved, .shelvedOffloaded].map(\.rawValue).contains(server.vmState)
        guard !isOff, !hardware.canHotplugDisks else { return hardware }
        throw ResourceError.conflict(
            "The property 'hw_disk_bus' of the image of server \(server.id) is '\(hardware.diskBus?.rawValue ?? "")'. Such disks can be "
                + "attached and detached only while the server is stopped.")
    }

    /// Number of the server's disks, volumes included.
    ///
    /// - Parameters:
    ///   - hardware: the server's present or future hardware.
    ///   - flavor: the server's future flavor; nil for its present one.
    static func disks(
        _ connection: Connection, _ server: String, _ hardware: GuestHardware, flavor: ServerFlavor? = nil
    ) throws -> Int {
        let row = try connection.query(
            """
            SELECT s.flavor, s.image IS NOT NULL AS has_image, s.config_drive,
                (SELECT count(*) FROM server_volumes v WHERE v.server_id = s.id) AS volumes
            FROM servers s WHERE s.id = \(server)
            """)[0]
        let own: ServerFlavor = try row.value("flavor")
        return hardware.disks(
            local: (flavor ?? own).localDisks(hasImage: try row.bool("has_image")), volumes: try row.int("volumes"),
            hasConfigDrive: try row.bool("config_drive"))
    }

    /// Checks the volume and inserts the row that reserves its device name.
    ///
    /// - Returns: the device name.
    /// - Throws: 404 if the project has no such volume, 400 if it cannot be attached, 403 if the server has the maximum number of volumes.
    static func reserve(
        _ connection: Connection, _ draft: Draft, on decision: Authorized<ServerRecord>, at now: Timestamp
    ) throws -> String {
        let server = try decision.value(for: action + "create")
        let volume = draft.volume
        let hardware = try requireHotplug(connection, server)
        let rows = try connection.query(
            "SELECT status, multiattach FROM published_volumes WHERE id = \(volume) AND project_id = \(server.project)")
        guard let row = rows.first else { throw ResourceError.notFound("Volume \(volume) could not be found.") }
        let present = try connection.query("SELECT volume_id, device, swap_volume_id FROM server_volumes WHERE server_id = \(server.id)")
        let taken = try present.reduce(into: [String: String]()) { $0[try $1.string("volume_id")] = try $1.string("device") }
        if try present.contains(where: { try $0.optionalString("swap_volume_id") == volume }) {
            throw ResourceError.badRequest("Invalid volume: volume \(volume) is about to take the place of another one of the server.")
        }
        if taken[volume] != nil {
            throw ResourceError.badRequest("Invalid volume: volume \(volume) is already attached to instance \(server.id).")
        }
        try hardware.check(disks: try disks(connection, server.id, hardware) + 1)
        if try row.bool("multiattach"), server.vmState == VMState.shelvedOffloaded.rawValue {
            throw ResourceError.badRequest("Attaching multiattach volumes is not supported for shelved-offloaded instances.")
        }
        try ServerVolumes.requireFree(row, volume: volume, knowsMultiattach: draft.knowsMultiattach)
        guard taken.count < volumesMax, let device = DeviceNames.free(taken: Set(taken.values).union(["/dev/vda"])) else {
            throw ResourceError.forbidden("The maximum allowed number of disk devices is reached.")
        }
        try insert(
            connection, draft.id, server: server.id, volume: volume, device: device, deletesOnTermination: draft.deletesOnTermination,
            tag: draft.tag, at: now)
        return device
    }

    /// Inserts the row of a volume that is being attached.
    ///
    /// - Parameter isNew: whether the volume is created for the server.
    static func insert(
        _ connection: Connection, _ id: String, server: String, volume: String, device: String, bootIndex: Int? = nil, isNew: Bool = false,
        deletesOnTermination: Bool, tag: String?, at now: Timestamp
    ) throws {
        let row: Changes = [
            "id": "\(id)", "server_id": "\(server)", "volume_id": "\(volume)", "device": "\(device)", "boot_index": "\(bootIndex)",
            "created": "\(isNew)", "delete_on_termination": "\(deletesOnTermination)", "tag": "\(tag)",
        ]
        try connection.execute(row.insertion("server_volumes", at: now, isUpdated: false))
        try connection.execute(
            "UPDATE server_volumes v SET size_gb = p.size FROM published_volumes p WHERE v.id = \(id) AND p.id = v.volume_id")
    }

    /// The device and tag of a server's volume; nil if the volume is not attached to the server.
    static func place(_ connection: Connection, of volume: String, on server: String) throws -> (device: String, tag: String?)? {
        try connection.query("SELECT device, tag FROM server_volumes WHERE server_id = \(server) AND volume_id = \(volume)").first
            .map { (device: try $0.string("device"), tag: try $0.optionalString("tag")) }
    }

    /// - Returns: whether the server has the volume.
    static func setDeletesOnTermination(
        _ connection: Connection, _ deletes: Bool, volume: String, of decision: Authorized<ServerRecord>
    ) throws -> Bool {
        let server = try decision.value(for: action + "update").id
        return try connection.execute(
            "UPDATE server_volumes SET delete_on_termination = \(deletes) WHERE server_id = \(server) AND volume_id = \(volume)") > 0
    }

    /// Locks the row of an attachment; nil if the server does not have the volume.
    static func lock(_ connection: Connection, volume: String, of server: String) throws -> Attachment? {
        try connection.query(
            """
            SELECT id, boot_index, state, swap_volume_id FROM server_volumes
            WHERE server_id = \(server) AND volume_id = \(volume) FOR UPDATE
            """
        ).first.map {
            Attachment(
                id: try $0.string("id"), isRoot: try $0.optionalInt("boot_index") == 0, state: try $0.string("state"),
                isSwapped: try $0.optionalString("swap_volume_id") != nil)
        }
    }

    static func markDetaching(_ connection: Connection, volume: String, of decision: Authorized<ServerRecord>) throws {
        let server = try decision.value(for: action + "delete").id
        try connection.execute(
            "UPDATE server_volumes SET state = 'detaching' WHERE server_id = \(server) AND volume_id = \(volume)")
    }
}
