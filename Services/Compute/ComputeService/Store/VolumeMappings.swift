import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

/// Images of servers that boot from volumes, in Nova's format.
enum VolumeMappings {
    /// The server's volumes, each with its entry in the image's mapping.
    ///
    /// - Throws: 409 while a volume is being attached or detached.
    static func volumes(_ connection: Connection, of server: String, imageName: String) throws -> [VolumeImage.Copy.Volume] {
        let rows = try connection.query(
            """
            SELECT v.volume_id, v.device, v.boot_index, v.delete_on_termination, v.tag, v.state, p.size
            FROM server_volumes v JOIN published_volumes p ON p.id = v.volume_id
            WHERE v.server_id = \(server) ORDER BY v.boot_index NULLS LAST, v.device
            """)
        return try rows.map { row in
            let id = try row.string("volume_id")
            guard try row.string("state") == "attached" else {
                throw ResourceError.conflict("Volume \(id) is being attached or detached. Create the image when it has finished.")
            }
            return .init(
                id: id,
                snapshot: [
                    "volume_id": .string(id), "force": true, "name": .string(String("snapshot for \(imageName)".prefix(255))),
                    "description": "",
                ],
                mapping: [
                    "source_type": "snapshot", "destination_type": "volume", "snapshot_id": .null, "volume_id": .null, "image_id": .null,
                    "volume_size": JSONValue(try row.int("size")), "volume_type": .null,
                    "boot_index": try row.optionalInt("boot_index").map { JSONValue($0) } ?? .null,
                    "device_name": .string(try row.string("device")), "device_type": "disk", "disk_bus": "virtio", "guest_format": .null,
                    "no_device": .null, "tag": JSONValue(try row.optionalString("tag")),
                    "delete_on_termination": .bool(try row.bool("delete_on_termination")),
                ])
        }
    }

    /// The members of the image's body that images of local disks do not have. The mapping itself follows with the snapshots.
    static let members: JSONObject = [
        "disk_format": "raw", "container_format": "bare", "bdm_v2": "True", "root_device_name": "/dev/vda", "min_disk": 0,
    ]
}
