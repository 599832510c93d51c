import Authorization
import ComputeCore
import Contracts
import Database
import GuestKeys
import ImageAccess
import JSON
import Kernel
import WebAPI

/// Accepts a rebuild inside its transaction: checks the request, and writes the server's new image and settings.
struct ServerRebuild {
    let connection: Connection
    let compute: Compute
    let owner: ServerOwner
    /// The member `rebuild` of the body.
    let body: JSONValue
    /// Whether the image may be written to the boot volume of a server (2.93).
    let writesVolumes: Bool

    /// The work that an accepted request starts.
    struct Accepted: Sendable {
        /// The agent's operation.
        let operation: ServerSpec.Operation
        /// The volume to which Block Storage writes the image first.
        let volume: String?
        let image: String
    }

    /// - Throws: 400, 403 (quota), or 409 with Nova's messages; before 2.93 also 400 for a boot volume whose content would have to change.
    func run(_ decision: Authorized<ServerRecord>) throws -> Accepted {
        let id = try decision.value(for: "os_compute_api:servers:rebuild").id
        let row = try connection.query(
            """
            SELECT flavor, image, image_id, host, \(ServerProperties.ofImage) AS image_properties,
                (SELECT v.volume_id FROM server_volumes v WHERE v.server_id = s.id AND v.boot_index = 0) AS boot_volume
            FROM servers s WHERE id = \(id)
            """)[0]
        var changes = Changes()
        let image = try imageID()
        if let volume = try row.optionalString("boot_volume") {
            if writesVolumes { try setVolumeImage(image, volume, of: id, row, &changes) } else { try checkVolume(volume, image) }
        } else {
            try setImage(image, of: id, row, &changes)
        }
        try settings(&changes)
        try changes.apply(connection, "servers", id, at: compute.ambient.now, touching: true)
        let operation = ServerSpec.Operation(
            id: compute.ambient.newUUID().description, kind: .rebuild,
            preservesEphemeral: body["preserve_ephemeral"]?.boolValue)
        return Accepted(operation: operation, volume: writesVolumes ? try row.optionalString("boot_volume") : nil, image: image)
    }

    private func imageID() throws -> String {
        let text = body["imageRef"]?.stringValue ?? ""
        guard let id = UUID128(Href.lastSegment(text)) else {
            throw ResourceError.badRequest("Invalid imageRef provided. Value: '\(text.prefix(64))'. It must be the id of an image.")
        }
        return id.description
    }

    private func checkVolume(_ volume: String, _ image: String) throws {
        let source = try connection.query("SELECT source_image_id FROM published_volumes WHERE id = \(volume)").first?
            .optionalString("source_image_id")
        guard source == image else {
            throw ResourceError.badRequest("Unable to rebuild with a different image for a volume-backed server.")
        }
    }

    /// Checks an image that Block Storage will write to the volume, which other services' members must be able to read.
    private func setVolumeImage(_ id: String, _ volume: String, of server: String, _ row: Row, _ changes: inout Changes) throws {
        let flavor: ServerFlavor = try row.value("flavor")
        let image = try ServerImageCheck(connection: connection, images: compute.images, owner: owner).usable(id)
        guard !image.needsUser else {
            throw ResourceError.forbidden(
                "Image \(id) cannot be written to a volume: that is done with the rights of a project member, who may not download it.")
        }
        let found = try connection.query("SELECT size, status FROM published_volumes WHERE id = \(volume)").first
        let (size, status) = (try found?.int("size") ?? 0, try found?.string("status") ?? "")
        guard ["in-use", "error"].contains(status) else {
            throw ResourceError.conflict("Volume \(volume) is \(status): its server cannot be rebuilt now.")
        }
        guard try !ServerVolumes.isBeingCopied(connection, volume) else {
            throw ResourceError.conflict("A snapshot of volume \(volume) is in progress. Rebuild the server when it is complete.")
        }
        guard try ServerVolumes.attachments(connection, of: volume) <= 1 else {
            throw ResourceError.conflict("Volume \(volume) is attached to other servers too: an image cannot be written to it.")
        }
        guard image.size != 0 else { throw ResourceError.badRequest("Image \(id) has no data to write to a volume.") }
        guard image.minRAM <= flavor.memoryMiB, max(image.size ?? 0, image.virtualSize ?? 0) <= size << 30, image.minDisk <= size else {
            throw ResourceError.badRequest(
                "Image \(id) does not fit: the volume has \(size) GiB, and the flavor \(flavor.memoryMiB) MiB of memory.")
        }
        let properties = TextMap(image.properties)
        try checkNeeds(of: id, properties, flavor, server, row)
        changes.set(json: "image_properties", try JSONValue(encoding: properties))
        changes.set("flavor", sql: "flavor || '{\"hardware_checked\": true}'")
    }

    /// - Throws: 400 for properties that the server's host cannot satisfy.
    private func checkNeeds(
        of id: String, _ properties: TextMap, _ flavor: ServerFlavor, _ server: String, _ row: Row
    ) throws {
        let specs = flavor.extraSpecs?.texts ?? [:]
        try GuestHardware.check(specs: specs, properties: properties.texts, vcpus: flavor.vcpus, memoryMiB: flavor.memoryMiB)
        let hardware = GuestHardware(specs: specs, properties: properties.texts)
        try hardware.check(disks: VolumeAttachmentStore.disks(connection, server, hardware))
        let earlier: TextMap = try row.value("image_properties")
        // The size of the disk is compared below. A rebuilt server has all the hardware that its flavor and image ask for.
        let old = try ServerNeeds(flavor, nil, properties: earlier)
        var checked = flavor
        checked.isHardwareChecked = true
        let new = try ServerNeeds(checked, nil, properties: properties)
        guard new.without(try hostTraits(row)).isMet(where: old) else {
            throw ResourceError.badRequest(
                """
                Image \(id) cannot be used to rebuild the server: it needs traits, dedicated processors, an architecture or a \
                hypervisor for which the server's host was not chosen.
                """
            )
        }
    }

    private func setImage(_ id: String, of server: String, _ row: Row, _ changes: inout Changes) throws {
        let flavor: ServerFlavor = try row.value("flavor")
        let image = try ServerImageCheck(connection: connection, images: compute.images, owner: owner)
            .rootDisk(id, memory: flavor.memoryMiB, root: flavor.rootGiB)
        try checkNeeds(of: id, image.properties, flavor, server, row)
        let claimed: ServerSpec.Image? = try row.optionalValue("image")
        guard flavor.rootGiB > 0 || image.diskGiB ?? 0 <= claimed?.diskGiB ?? 0 else {
            throw ResourceError.badRequest(
                """
                Image \(id) needs a disk of \(image.diskGiB ?? 0) GiB, and the server, whose flavor does not say a size, has one of \
                \(claimed?.diskGiB ?? 0) GiB.
                """
            )
        }
        // The disk keeps the size that was claimed for it.
        var kept = image
        if flavor.rootGiB == 0 { kept.diskGiB = claimed?.diskGiB }
        changes.set("root_is_copy", sql: "false")
        changes.set("image_id", sql: "\(id)::uuid")
        changes.set(json: "image", try JSONValue(encoding: kept))
        changes.set(json: "image_properties", try JSONValue(encoding: image.properties))
        changes.set("flavor", sql: "flavor || '{\"hardware_checked\": true}'")
    }

    /// The traits that the server's host has reported. Placement also has traits that operators set; those only count if the server was
    /// scheduled with them.
    private func hostTraits(_ row: Row) throws -> Set<String> {
        guard let host = try row.optionalString("host") else { return [] }
        let rows = try connection.query("SELECT capabilities FROM hypervisors WHERE host = \(host)")
        guard let offered: HostCapabilities = try rows.first?.value("capabilities") else { return [] }
        return Set(offered.traits)
    }

    /// Members that the body has replace those of the server; null removes them.
    private func settings(_ changes: inout Changes) throws {
        if let name = body["name"]?.stringValue { changes.set("name", name) }
        if let description = body["description"] { changes.set("description", description.stringValue) }
        if let hostname = body["hostname"]?.stringValue { changes.set("hostname", hostname) }
        if let config = body["OS-DCF:diskConfig"]?.stringValue { changes.set("disk_config", config) }
        if let address = body["accessIPv4"] { changes.set("access_ip_v4", address.stringValue) }
        if let address = body["accessIPv6"] {
            changes.set("access_ip_v6", address.stringValue.map { IPAddress($0)?.description ?? $0 })
        }
        if let metadata = body["metadata"]?.objectValue {
            try ServerCreation.checkMetadata(connection, metadata, project: owner.project, compute.quota)
            changes.set(json: "metadata", .object(metadata))
        }
        if let name = body["key_name"] {
            let key = try name.stringValue.map { try ServerCreation.key(connection, $0, user: owner.user) }
            changes.set("key_name", key?.name)
            changes.set("key_data", key?.data)
            changes.set("key_type", key?.type ?? "ssh")
        }
        if let data = body["user_data"] { changes.set("user_data", data.stringValue) }
        if let list = body["personality"]?.arrayValue {
            let files = list.map(ServerFile.init)
            try ServerCreation.checkFiles(connection, files, project: owner.project, compute.quota)
            changes.set(json: "personality", .array(files.map(\.document)))
        }
    }
}
