import Contracts
import ImageAccess
import JSON
import Kernel
import WebAPI

/// Images of servers that boot from volumes. They have no data: their property `block_device_mapping` names snapshots.
enum ImageOfSnapshots {
    /// The snapshot of the boot volume; nil for an image with data of its own. Block Storage API 3.46.
    ///
    /// - Throws: 400 before 3.46, and for an image with other disks only, because its volume would be empty.
    static func bootSnapshot(_ image: UsableImage, _ context: RequestContext) throws -> String? {
        guard image.size ?? 0 == 0 else { return nil }
        let mapping = try ImageMapping.entries(image.properties, image: image.id)
        guard !mapping.isEmpty else { return nil }
        guard context.version(atLeast: 3, 46) else {
            throw ResourceError.badRequest(
                "Image \(image.id) has no data: it names snapshots of volumes. Volumes are created from such images from 3.46 on.")
        }
        let boot = mapping.first { $0["source_type"] == "snapshot" && $0["boot_index"] == 0 }
        guard let snapshot = UUID128(boot?["snapshot_id"]?.stringValue ?? "") else {
            throw ResourceError.badRequest(
                "Image \(image.id) has no data, and its block_device_mapping names no snapshot of a boot volume.")
        }
        return snapshot.description
    }
}
