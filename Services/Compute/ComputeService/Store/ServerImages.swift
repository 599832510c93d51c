import ComputeCore
import Contracts
import Database
import ImageAccess
import JSON
import Kernel
import Workflow

/// The properties that images of servers have, as in Nova.
enum ServerImages {
    /// The data of a server that its images depend on.
    struct Source: Sendable {
        let id: String
        let name: String
        let project: String
        let user: String
        let host: String?
        let imageID: String?
        let rootGiB: Int
        /// Of the image that the server was created from.
        let properties: JSONObject
        let minRAM: Int
        let minDisk: Int
        /// Whether the root disk is on the server's host.
        let isLocal: Bool
    }

    /// Properties that describe the data file of an image and not its content; copies do not inherit them.
    private static let uninherited: Set<String> = [
        "block_device_mapping", "bdm_v2", "root_device_name", "mappings", "cache_in_nova", "bittorrent", "img_signature_hash_method",
        "img_signature", "img_signature_key_type", "img_signature_certificate_uuid", "cinder_encryption_key_id",
        "cinder_encryption_key_deletion_policy", "os_glance_importing_to_stores", "os_glance_failed_import", "instance_owner",
        "backup_type", "instance_uuid", "user_id", "image_type", "base_image_ref", "owner_specified.openstack.md5",
        "owner_specified.openstack.sha256", "owner_specified.openstack.object",
    ]

    /// Members of a volume's image metadata that are attributes of the image and none of its properties, as in Nova.
    static let volumeAttributes: Set<String> = [
        "image_id", "image_name", "size", "checksum", "container_format", "disk_format", "min_ram", "min_disk",
    ]

    /// - Throws: 404 without the server.
    static func source(_ connection: Connection, _ id: String, images: ImageAccess) throws -> Source {
        let rows = try connection.query(
            """
            SELECT s.name, s.project_id, s.user_id, s.host, s.image_id, s.flavor, s.image, \(ServerProperties.ofImage) AS image_properties,
                EXISTS (SELECT 1 FROM server_volumes v WHERE v.server_id = s.id AND v.boot_index = 0) AS on_volume
            FROM servers s WHERE s.id = \(id) AND NOT s.deleted
            """)
        guard let row = rows.first else { throw ServerRecord.missing(id) }
        let (project, user) = (try row.string("project_id"), try row.string("user_id"))
        let imageID = try row.optionalString("image_id")
        let known = try imageID.flatMap { try images.source(connection, $0, project: project, user: user)?.image }
        let flavor: ServerFlavor = try row.value("flavor")
        let recorded = try row.optionalJSON("image")?["min_disk"]?.intValue ?? 0
        return Source(
            id: id, name: try row.string("name"), project: project, user: user, host: try row.optionalString("host"), imageID: imageID,
            rootGiB: flavor.rootGiB, properties: try row.object("image_properties"), minRAM: known?.minRAM ?? 0,
            minDisk: max(known?.minDisk ?? recorded, flavor.rootGiB), isLocal: try imageID != nil && !row.bool("on_volume"))
    }

    /// The body of a new image of a server, for Image.
    ///
    /// - Parameters:
    ///   - requester: the owner of the image.
    ///   - type: `snapshot` or `backup`.
    ///   - metadata: properties that the request gives; they have precedence over those of the server's image.
    static func body(
        _ id: String, name: String, of source: Source, requester: ActingSubject, type: String, metadata: JSONObject = [:]
    ) -> JSONObject {
        var body: JSONObject = [
            "id": .string(id), "name": .string(name), "visibility": requester.project == source.project ? "private" : "shared",
            "disk_format": "qcow2", "container_format": "bare", "min_disk": JSONValue(source.minDisk), "min_ram": JSONValue(source.minRAM),
        ]
        var properties: JSONObject = [:]
        for (name, value) in source.properties.members where !uninherited.contains(name) && !volumeAttributes.contains(name) {
            properties[name] = value
        }
        properties["instance_uuid"] = .string(source.id)
        properties["user_id"] = .string(requester.user)
        properties["image_type"] = .string(type)
        if let base = source.imageID { properties["base_image_ref"] = .string(base) }
        if requester.project != source.project { properties["instance_owner"] = .string(source.project) }
        for (name, value) in metadata.members { properties[name] = value }
        for (name, value) in properties.members where body[name] == nil && !value.isNull { body[name] = value }
        return body
    }

    /// Whether the guest's file systems are frozen for a copy of its disk.
    static func quiesce(_ source: Source) -> ServerJob.DiskUpload.Quiesce {
        func isTrue(_ name: String) -> Bool {
            ["1", "t", "true", "on", "y", "yes"].contains((source.properties[name]?.stringValue ?? "").lowercased())
        }
        if isTrue("os_require_quiesce") { return .required }
        return isTrue("hw_qemu_guest_agent") ? .ifPossible : .never
    }

    /// Members of an image that a request's `metadata` cannot give.
    static let attributes: Set<String> = ["id", "name", "visibility", "disk_format", "container_format", "min_disk", "min_ram"]

    /// The properties by which the backups of a server are found.
    static func backups(of server: String, type: String) -> JSONObject {
        ["instance_uuid": .string(server), "image_type": "backup", "backup_type": .string(type)]
    }

    /// A root disk that is created from an image that exists only for this server and will be deleted.
    ///
    /// - Throws: `StepFailure` if the image does not exist.
    static func rootDisk(_ connection: Connection, from id: String, project: String, user: String, images: ImageAccess) throws
        -> ServerSpec.Image
    {
        guard let image = try images.source(connection, id, project: project, user: user)?.image, image.status == "active",
            let format = image.diskFormat
        else { throw StepFailure("The image \(id) of the server's disk does not exist or has no data.") }
        let needed = max(image.size ?? 0, image.virtualSize ?? 0)
        return ServerSpec.Image(
            id: id, checksum: image.checksum, hashAlgorithm: image.hashAlgorithm, contentHash: image.hashValue, diskFormat: format,
            size: image.size, minDiskGiB: image.minDisk, diskGiB: (needed + (1 << 30) - 1) >> 30, properties: TextMap(image.properties),
            isCopied: true)
    }
}
