import ComputeCore
import Contracts
import Database
import ImageAccess
import JSON
import Kernel

/// Chooses the system that a server boots while it is rescued.
struct ServerRescue {
    let connection: Connection
    let images: ImageAccess
    let owner: ServerOwner
    /// Nil for the server's own image.
    let imageRef: String?
    /// Whether servers on volumes can be rescued (2.87).
    let allowsVolumes: Bool

    /// - Throws: 400 with Nova's messages: for an image that cannot be used, and for a server that boots from a volume unless the rescue
    ///   disk is added to the server's own disks.
    func choose(for server: String) throws -> ServerSpec.Rescue {
        let row = try connection.query(
            """
            SELECT image_id, flavor, EXISTS (SELECT 1 FROM server_volumes v WHERE v.server_id = s.id AND v.boot_index = 0) AS on_volume
            FROM servers s WHERE id = \(server)
            """)[0]
        let isOnVolume = try row.bool("on_volume")
        if isOnVolume, !allowsVolumes { throw ServerRescue.refusal(server, "Cannot rescue a volume-backed instance") }
        let text = try imageRef ?? row.optionalString("image_id") ?? ""
        guard let id = UUID128(Href.lastSegment(text))?.description else {
            throw imageRef == nil
                ? ServerRescue.refusal(server, "The server boots from a volume, so rescue_image_ref is needed")
                : ResourceError.badRequest("Invalid rescue_image_ref. Value: '\(text.prefix(64))'. It must be the id of an image.")
        }
        let check = ServerImageCheck(connection: connection, images: images, owner: owner)
        let image = try check.usable(id)
        let content = try check.content(image)
        let flavor: ServerFlavor = try row.value("flavor")
        if image.minRAM > flavor.memoryMiB {
            throw ResourceError.badRequest(
                "Image \(id) needs \(image.minRAM) MiB of memory, and the server's flavor has \(flavor.memoryMiB) MiB.")
        }
        let (device, bus) = (content.properties["hw_rescue_device"], content.properties["hw_rescue_bus"])
        let isStable = device != nil || bus != nil
        if isOnVolume, !isStable {
            throw ServerRescue.refusal(server, "Cannot rescue a volume-backed instance without hw_rescue_device or hw_rescue_bus")
        }
        let chosen = try ServerRescue.device(device?.lowercased() ?? "disk", bus?.lowercased(), image: id)
        return ServerSpec.Rescue(image: content, isStable: isStable, device: chosen.device, bus: chosen.bus)
    }

    private static func refusal(_ server: String, _ reason: String) -> ResourceError {
        .badRequest("Instance \(server) cannot be rescued: \(reason)")
    }

    /// - Throws: 400 for a device or bus that this cloud does not support.
    private static func device(_ device: String, _ bus: String?, image: String) throws -> (device: String, bus: String) {
        let buses = ["disk": ["virtio", "scsi", "sata", "ide", "usb"], "cdrom": ["sata", "scsi", "ide", "usb"]]
        guard let allowed = buses[device] else {
            throw ResourceError.badRequest(
                "The property 'hw_rescue_device' of image \(image) is '\(device.prefix(64))'. This cloud supports disk and cdrom.")
        }
        let bus = bus ?? allowed[0]
        guard allowed.contains(bus) else {
            throw ResourceError.badRequest(
                """
                The property 'hw_rescue_bus' of image \(image) is '\(bus.prefix(64))'. For a \(device) this cloud supports \
                \(allowed.joined(separator: ", ")).
                """
            )
        }
        return (device, bus)
    }
}
