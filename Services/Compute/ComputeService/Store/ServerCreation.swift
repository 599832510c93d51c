import Authorization
import ComputeCore
import Contracts
import Database
import GuestKeys
import ImageAccess
import JSON
import Kernel
import WebAPI
import Workflow

/// The user and project of a create request.
struct ServerOwner: Sendable {
    let project: String
    let user: String
    let isAdmin: Bool
    /// The user, with the rights at the time of execution; nil if the token has no project.
    let asUser: ActingSubject?
    /// The user with the rights of an administrator of the whole cloud; nil for other users.
    var administrator: ActingSubject? { isAdmin ? asUser : nil }
    let requestID: String
    let caller: Caller
    /// The owner of the images that hold a server's disks during a move: the requesting user's project, whose quota they count against.
    var mover: ActingSubject { .accepted(project: caller.projectID ?? project, user: caller.userID) }
    /// Whether policy lets the user choose addresses in a network of this project.
    let choosesAddress: @Sendable (_ networkProject: String) -> Bool
    /// Whether policy lets the user have a root disk whose size the image decides.
    let mayUseZeroDisk: Bool

    /// As Nova's action of this name.
    static let zeroDiskAction = "os_compute_api:servers:create:zero_disk_flavor"

    /// - Parameter project: the servers' project.
    /// - Throws: 401 without a caller.
    init(_ context: RequestContext, project: String) throws {
        let caller = try context.caller
        self.caller = caller
        self.project = project
        asUser = caller.projectID.map { ActingSubject(project: $0, user: caller.userID, grounds: .user) }
        user = caller.userID
        isAdmin = caller.isAdmin
        requestID = context.requestID
        mayUseZeroDisk = context.allows(ServerOwner.zeroDiskAction, target: .project(project))
        choosesAddress = { ServerInterfaces.mayChooseAddress(context, networkProject: $0) }
    }
}

/// Accepts `POST /servers` inside its transaction: checks every reference, takes the quota, writes the rows.
struct ServerCreation {
    let connection: Connection
    let ambient: Ambient
    let settings: ComputeSettings
    let images: ImageAccess
    let workflow: Workflow<ServerCreate.Build>
    let owner: ServerOwner
    var request: ServerRequest

    /// Quota is reserved as late as possible, because the usage row is a lock that serializes the requests of a project.
    ///
    /// - Parameter project: the owner's, with the decision that servers may be created or tried out there.
    /// - Returns: ids in order of launch index.
    /// - Throws: 400, 403 (quota), 404 or 409 in Compute's words.
    func run(_ project: Authorized<String>) throws -> [String] {
        try project.value(for: "os_compute_api:servers:create", "os_compute_api:os-wolke-scheduling:try")
        let flavor = try self.flavor()
        var creation = self
        let ofImage = try creation.addImageDevices(flavor)
        return try creation.admit(flavor, imageProperties: ofImage)
    }

    /// Adds the disks that the image defines, and removes those that the flavor provides.
    ///
    /// - Returns: the properties of the image if its content is in volumes.
    private mutating func addImageDevices(_ flavor: Flavor) throws -> JSONObject? {
        var properties: JSONObject?
        if let id = request.imageID {
            let image = try usableImage(id)
            let devices = try ImageDevices.devices(image.properties, image: id)
            try request.add(imageDevices: devices)
            if request.imageID == nil {
                properties = JSONObject(image.properties.members.filter { !ImageDevices.properties.contains($0.name) })
            }
        } else {
            try request.add(imageDevices: [])
        }
        try request.settleLocalDisks(ephemeralGiB: flavor.ephemeral, swapMiB: flavor.swap)
        return properties
    }

    private func admit(_ flavor: Flavor, imageProperties: JSONObject?) throws -> [String] {
        let image = try self.image(flavor)
        let properties = try image?.properties ?? TextMap(imageProperties ?? bootVolumeProperties())
        let specs = flavor.document["extra_specs"]?.objectValue.map { TextMap($0).texts } ?? [:]
        try GuestHardware.check(specs: specs, properties: properties.texts, vcpus: flavor.vcpus, memoryMiB: flavor.memory)
        try checkDisks(flavor, GuestHardware(specs: specs, properties: properties.texts))
        // Refuse early what the scheduler would refuse later.
        _ = try ServerNeeds(resources: [:], extraSpecs: specs, imageProperties: properties.texts, isHardwareChecked: true)
        try checkZone()
        let key = try keyData()
        let group = try self.group()
        try checkHints()
        let networks = try self.networks()
        let securityGroups = try self.securityGroups()
        try checkVolumes()
        let isFixed = request.minCount == request.maxCount
        try checkMetadata()
        try checkFiles()
        let accepted = isFixed ? request.maxCount : try reserve(flavor)
        let reservation = "r-" + ambient.newSecret(length: 8)
        var ids: [String] = []
        for index in 0..<accepted {
            let id = ambient.newUUID().description
            try insert(
                id, index: index, count: accepted, flavor: flavor, image: image, properties: properties, key: key,
                group: group, networks: networks, securityGroups: securityGroups, reservation: reservation)
            ids.append(id)
        }
        if isFixed { try settings.quota.reserve(connection, project: owner.project, amounts(flavor, accepted)) }
        return ids
    }

    private func amounts(_ flavor: Flavor, _ count: Int) -> [(quota: QuotaDeclaration, amount: Int)] {
        [(ComputeQuotas.instances, count), (ComputeQuotas.cores, count * flavor.vcpus), (ComputeQuotas.memory, count * flavor.memory)]
    }

    /// - Throws: 400 if the disks do not all fit on their bus.
    private func checkDisks(_ flavor: Flavor, _ hardware: GuestHardware) throws {
        let local = try flavor.document.decode(as: ServerFlavor.self).localDisks(hasImage: request.imageID != nil)
        let volumes = request.devices.count { $0.destination != .local }
        try hardware.check(disks: hardware.disks(local: local, volumes: volumes, hasConfigDrive: request.configDrive))
    }

    private func checkMetadata() throws {
        try ServerCreation.checkMetadata(connection, request.metadata, project: owner.project, settings.quota)
    }

    /// - Throws: 403 if there are more items than the project's quota allows.
    static func checkMetadata(_ connection: Connection, _ metadata: JSONObject, project: String, _ quota: Quota) throws {
        guard !metadata.isEmpty else { return }
        let limit = try quota.state(connection, project: project, ComputeQuotas.metadataItems).limit
        if limit >= 0, metadata.count > limit {
            throw ResourceError.forbidden("Maximum number of metadata items exceeds \(limit)")
        }
    }

    private func checkFiles() throws {
        try ServerCreation.checkFiles(connection, request.files, project: owner.project, settings.quota)
    }

    /// - Throws: 403 with Nova's message if the number or size of the files exceeds the project's quota.
    static func checkFiles(_ connection: Connection, _ files: [ServerFile], project: String, _ quotas: Quota) throws {
        guard !files.isEmpty else { return }
        func excess(_ quota: QuotaDeclaration, _ value: Int) throws -> Int? {
            let limit = try quotas.state(connection, project: project, quota).limit
            return limit >= 0 && value > limit ? limit : nil
        }
        if let limit = try excess(ComputeQuotas.files, files.count) {
            throw ResourceError.forbidden("Personality file limit exceeded: \(files.count) files, at most \(limit) are allowed.")
        }
        if let limit = try excess(ComputeQuotas.filePathLength, files.map(\.path.utf8.count).max() ?? 0) {
            throw ResourceError.forbidden("Personality file path exceeds maximum \(limit)")
        }
        if let limit = try excess(ComputeQuotas.fileSize, files.map(\.size).max() ?? 0) {
            throw ResourceError.forbidden("Personality file content exceeds maximum \(limit)")
        }
    }

    /// As many servers as the quota allows, at least `min_count`.
    private func reserve(_ flavor: Flavor) throws -> Int {
        var count = request.maxCount
        while true {
            do {
                let wanted = amounts(flavor, count)
                try connection.savepoint { try settings.quota.reserve($0, project: owner.project, wanted) }
                return count
            } catch let error as ResourceError where error.code == .forbidden && count > request.minCount {
                count -= 1
            }
        }
    }

    private func insert(
        _ id: String, index: Int, count: Int, flavor: Flavor, image: ServerSpec.Image?, properties: TextMap,
        key: Key?, group: String?, networks: JSONValue, securityGroups: JSONValue, reservation: String
    ) throws {
        let now = ambient.now
        let name = count > 1 ? "\(request.name)-\(index + 1)" : request.name
        let host = count > 1 && request.hostname != nil ? "\(request.hostname ?? "")-\(index + 1)" : request.hostname
        let hostname = host ?? HostName.sanitized(name, fallback: "server-\(id)")
        let isConfigDrive = request.configDrive || properties["img_config_drive"]?.lowercased() == "mandatory"
        let imageDocument = try image.map { try JSONValue(encoding: $0) }
        let imageProperties = try JSONValue(encoding: properties)
        let row: Changes = [
            "id": "\(id)", "project_id": "\(owner.project)", "user_id": "\(owner.user)", "name": "\(name)",
            "description": "\(request.description)", "hostname": "\(hostname)", "vm_state": "'building'", "task_state": "'scheduling'",
            "flavor_id": "\(flavor.id)", "flavor": "\(flavor.document)::jsonb", "image_id": "\(request.imageID)",
            "image": "\(imageDocument)::jsonb", "image_properties": "\(imageProperties)::jsonb", "key_name": "\(key?.name)",
            "key_data": "\(key?.data)", "key_type": "\(key?.type ?? "ssh")", "user_data": "\(request.userData)",
            "personality": "\(JSONValue.array(request.files.map(\.document)))::jsonb", "config_drive": "\(isConfigDrive)",
            "metadata": "\(request.metadata)::jsonb", "tags": "\(request.tags)::text[]", "pinned_zone": "\(request.zone.zone)",
            "requested_host": "\(request.zone.target)", "scheduler_hints": "\(request.hints)::jsonb", "group_id": "\(group)",
            "requested_networks": "\(networks)::jsonb",
            "requested_devices": "\(JSONValue.array(request.devices.map(\.document)))::jsonb", "root_tag": "\(request.rootTag)",
            "security_groups": "\(securityGroups)::jsonb", "access_ip_v4": "\(request.accessIPv4)",
            "access_ip_v6": "\(request.accessIPv6)", "disk_config": "\(request.diskConfig)", "launch_index": "\(index)",
            "reservation_id": "\(reservation)",
        ]
        let action = ServerActions.insertion(
            server: id, action: "create", event: "compute__do_build_and_run_instance", requestID: owner.requestID, user: owner.user,
            project: owner.project, now: now)
        try connection.query("WITH server AS (\(row.insertion("servers", at: now))) \(action)")
        try takePorts(id)
        try Workflows.start(
            connection, workflow, subject: id, frame: ServerCreate.Build(), requestID: owner.requestID, ambient: ambient)
    }

    /// Claims the named ports, so that no other server can use them.
    private func takePorts(_ id: String) throws {
        guard case .interfaces(let list) = request.networks else { return }
        for (index, item) in list.enumerated() {
            guard let port = item.portID else { continue }
            let insertion = InterfaceStore.insertion(port: port, server: id, position: "\(index)", tag: item.tag, state: "attaching")
            let taken = try connection.execute("\(insertion) ON CONFLICT DO NOTHING")
            if taken == 0 { throw ResourceError.conflict("Port \(port) is still in use.") }
        }
    }

    // MARK: references

    struct Flavor {
        let id: String
        let vcpus: Int
        let memory: Int
        let root: Int
        /// GiB.
        let ephemeral: Int
        /// MiB.
        let swap: Int
        let document: JSONValue
    }

    private func flavor() throws -> Flavor {
        guard let flavor = try ServerCreation.flavor(connection, request.flavorRef, owner) else {
            throw ResourceError.badRequest("Flavor \(request.flavorRef.prefix(255)) could not be found.")
        }
        return flavor
    }

    /// Nil for a flavor that the owner may not use.
    static func flavor(_ connection: Connection, _ ref: String, _ owner: ServerOwner) throws -> Flavor? {
        let rows = try connection.query(
            """
            SELECT f.id, f.name, f.flavorid, f.vcpus, f.memory_mb, f.root_gb, f.ephemeral_gb, f.swap_mb, f.extra_specs
            FROM flavors f WHERE f.flavorid = \(Href.lastSegment(ref)) AND NOT f.disabled
            AND (f.is_public OR \(owner.isAdmin) OR EXISTS (SELECT 1 FROM flavor_access a
                WHERE a.flavor_id = f.id AND a.project_id = \(owner.project)))
            """)
        guard let row = rows.first else { return nil }
        return Flavor(
            id: try row.string("id"), vcpus: try row.int("vcpus"), memory: try row.int("memory_mb"),
            root: try row.int("root_gb"), ephemeral: try row.int("ephemeral_gb"), swap: try row.int("swap_mb"),
            document: [
                "vcpus": JSONValue(try row.int("vcpus")), "ram": JSONValue(try row.int("memory_mb")),
                "disk": JSONValue(try row.int("root_gb")), "ephemeral": JSONValue(try row.int("ephemeral_gb")),
                "swap": JSONValue(try row.int("swap_mb")), "original_name": .string(try row.string("name")),
                "flavorid": .string(try row.string("flavorid")), "extra_specs": try row.json("extra_specs"),
                // Creation and resize check it.
                "hardware_checked": true,
            ])
    }

    /// The image's content for the agent; nil where the server boots from a volume.
    private func image(_ flavor: Flavor) throws -> ServerSpec.Image? {
        for id in request.devices.filter({ $0.source == .image }).compactMap(\.uuid) {
            guard try !usableImage(id).needsUser else {
                throw ResourceError.forbidden(
                    """
                    Cannot create a volume for a server from image \(id): volumes are created with the rights of a \
                    project member, who may not download the image.
                    """
                )
            }
        }
        guard let id = request.imageID else { return nil }
        return try imageCheck.rootDisk(id, memory: flavor.memory, root: flavor.root)
    }

    /// The properties of the image from which the boot volume was or will be created; they apply as for a local disk.
    private func bootVolumeProperties() throws -> JSONObject {
        guard let device = request.devices.first(where: { $0.bootIndex == 0 }) else { return [:] }
        if device.source == .blank { return try request.propertiesImageID.map { try usableImage($0).properties } ?? [:] }
        guard let id = device.uuid else { return [:] }
        switch device.source {
        case .image: return try usableImage(id).properties
        case .volume:
            return try imageMetadata(
                "SELECT v.image_metadata FROM published_volumes v WHERE v.id = \(id)::uuid AND v.project_id = \(owner.project)")
        case .snapshot:
            return try imageMetadata(
                """
                SELECT v.image_metadata FROM published_volume_snapshots s JOIN published_volumes v ON v.id = s.volume_id
                WHERE s.id = \(id)::uuid AND s.project_id = \(owner.project)
                """)
        case .blank: return [:]
        }
    }

    private func imageMetadata(_ query: SQL) throws -> JSONObject {
        let metadata = try connection.query(query).first?.optionalJSON("image_metadata")?.objectValue ?? [:]
        return JSONObject(metadata.members.filter { !ServerImages.volumeAttributes.contains($0.name) }.map { ($0.name, $0.value) })
    }

    private var imageCheck: ServerImageCheck { ServerImageCheck(connection: connection, images: images, owner: owner) }

    private func usableImage(_ id: String) throws -> UsableImage { try imageCheck.usable(id) }

    private func checkZone() throws {
        if let target = request.zone.target {
            let known = try connection.query("SELECT 1 AS one FROM compute_services WHERE host = \(target)")
            if known.isEmpty { throw ResourceError.badRequest("Compute host \(target) could not be found.") }
        }
        if let zone = request.zone.zone { try ServerCreation.requireZone(connection, zone, settings) }
    }

    /// - Throws: 400 for a zone that no host has.
    static func requireZone(_ connection: Connection, _ zone: String, _ settings: ComputeSettings) throws {
        guard zone != settings.defaultZone else { return }
        let known = try connection.query(
            """
            SELECT 1 AS one FROM aggregates WHERE availability_zone = \(zone)
            UNION ALL SELECT 1 FROM compute_services WHERE availability_zone = \(zone) LIMIT 1
            """)
        if known.isEmpty {
            throw ResourceError.badRequest("The requested availability zone is not available: no availability zone is named '\(zone)'")
        }
    }

    /// A key pair of the user, in the form stored with the server.
    struct Key {
        let name: String
        let data: String
        let type: String
    }

    private func keyData() throws -> Key? {
        try request.keyName.map { try ServerCreation.key(connection, $0, user: owner.user) }
    }

    /// - Throws: 400 if the user has no key pair of this name.
    static func key(_ connection: Connection, _ name: String, user: String) throws -> Key {
        let rows = try connection.query("SELECT public_key, type FROM keypairs WHERE user_id = \(user) AND name = \(name)")
        guard let row = rows.first else {
            throw ResourceError.badRequest("Invalid key_name provided: no key pair is named '\(name)'.")
        }
        return Key(name: name, data: try row.string("public_key"), type: try row.string("type"))
    }

    private func group() throws -> String? {
        guard let text = request.groupID else { return nil }
        let rows =
            UUID128(text) == nil
            ? nil
            : try connection.query(
                "SELECT id FROM server_groups WHERE id = \(text)::uuid AND (project_id = \(owner.project) OR \(owner.isAdmin)) FOR SHARE")
        guard let id = try rows?.first?.string("id") else {
            throw ResourceError.badRequest("Instance group \(text.prefix(64)) could not be found.")
        }
        let limit = try settings.quota.state(connection, project: owner.project, ComputeQuotas.serverGroupMembers).limit
        let members = try connection.query(
            "SELECT count(*) AS count FROM servers WHERE group_id = \(id) AND NOT deleted")[0].int("count")
        if limit >= 0, members + request.maxCount > limit {
            throw ResourceError.forbidden("Quota exceeded, too many servers in group")
        }
        return id
    }

    /// Scheduler hints may only refer to servers of the project, because they would reveal where other projects' servers
    /// run.
    private func checkHints() throws {
        for hint in ["same_host", "different_host"] {
            let value = request.hints[hint]
            let ids = (value?.arrayValue ?? [value].compactMap { $0 }).compactMap(\.stringValue).compactMap { UUID128($0) }
            guard !ids.isEmpty else { continue }
            let known = try connection.query(
                """
                SELECT id FROM servers WHERE id = ANY(\(ids.map(\.description))::uuid[]) AND (project_id = \
                \(owner.project) OR \(owner.isAdmin))
                """
            ).map { try $0.string("id") }
            if let unknown = ids.map(\.description).first(where: { !known.contains($0) }) {
                throw ResourceError.badRequest("Invalid input for scheduler hint \(hint): server \(unknown) could not be found.")
            }
        }
    }

    private func checkVolumes() throws {
        let ids = request.devices.filter { $0.source == .volume }.compactMap(\.uuid)
        guard ids.uniqued.count == ids.count else {
            throw ResourceError.badRequest("Block Device Mapping is Invalid: a volume is named twice.")
        }
        for device in request.devices where device.source == .volume {
            try ServerVolumes.checkAttachable(
                connection, volume: device.uuid ?? "", project: owner.project, boots: device.bootIndex == 0,
                knowsMultiattach: request.knowsMultiattach)
        }
        for device in request.devices {
            if device.source == .snapshot {
                try ServerVolumes.checkSnapshot(connection, device, project: owner.project)
            }
            if let type = device.volumeType, device.source != .volume {
                try ServerVolumes.checkType(connection, type, project: owner.project)
            }
        }
    }
}

/// References that may come as a URL whose last segment is the id.
enum Href {
    static func lastSegment(_ text: String) -> String {
        text.contains("/") ? text.split(separator: "/").last.map(String.init) ?? text : text
    }
}
