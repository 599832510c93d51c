package import JSON
package import Kernel

/// A request for a server: the validated body of `POST /servers`, normalized across microversions.
package struct ServerRequest: Sendable {
    /// The networks in the request.
    package enum Networks: Sendable, Hashable {
        /// Not given (before 2.37) or `auto`: the only available network.
        case automatic(required: Bool)
        case none
        case interfaces([InterfaceRequest])
    }

    package var name: String
    package var description: String?
    package var hostname: String?
    package var imageID: String?
    /// The image whose properties the server gets if it boots from a blank volume.
    package var propertiesImageID: String?
    package var flavorRef: String
    package var devices: [DeviceRequest]
    /// The tag of the local root disk.
    package var rootTag: String?
    package var networks: Networks
    /// Names or ids; empty for the project's default.
    package var securityGroups: [String]
    package var keyName: String?
    package var userData: String?
    /// Files injected at the first boot (before 2.57).
    package var files: [ServerFile]
    package var metadata: JSONObject
    package var configDrive: Bool
    package var zone: ZoneRequest
    package var hints: JSONObject
    package var minCount: Int
    package var maxCount: Int
    package var tags: [String]
    package var diskConfig: String
    package var accessIPv4: String?
    package var accessIPv6: String?
    package var adminPass: String?
    package var returnsReservation: Bool
    /// Whether the request's version supports multiattach volumes (2.60).
    package var knowsMultiattach: Bool
    /// The server group, by id, and other supported scheduler hints.
    package var groupID: String? { hints["group"]?.stringValue }

    /// - Throws: 400 if `accessIPv4` or `accessIPv6` is not an address of its version.
    package static func checkAccessAddresses(_ server: JSONValue) throws {
        for (name, version) in [("accessIPv4", IPAddress.Version.v4), ("accessIPv6", .v6)] {
            if let text = server[name]?.stringValue, !text.isEmpty, IPAddress(text)?.version != version {
                throw ResourceError.badRequest(
                    "Invalid input for field/attribute \(name). Value: \(text.prefix(64)). It must be an IPv\(version.rawValue) address.")
            }
        }
    }

    /// - Parameters:
    ///   - body: the validated body.
    ///   - networksRequired: whether `networks` is required in the request's version.
    /// - Throws: 400 that names the field.
    package init(_ body: JSONValue, networksRequired: Bool, knowsMultiattach: Bool = true) throws {
        self.knowsMultiattach = knowsMultiattach
        let server = body["server"] ?? [:]
        func text(_ name: String) -> String? { server[name]?.stringValue }
        name = text("name") ?? ""
        description = text("description")
        hostname = text("hostname")
        flavorRef = text("flavorRef") ?? server["flavorRef"]?.intValue.map(String.init) ?? ""
        metadata = server["metadata"]?.objectValue ?? [:]
        keyName = text("key_name")
        userData = text("user_data")
        files = (server["personality"]?.arrayValue ?? []).map(ServerFile.init)
        configDrive = server["config_drive"]?.boolValue ?? false
        tags = (server["tags"]?.arrayValue ?? []).compactMap(\.stringValue).uniqued
        try tags.forEach(ServerRequest.check(tag:))
        diskConfig = text("OS-DCF:diskConfig") ?? "MANUAL"
        try ServerRequest.checkAccessAddresses(server)
        accessIPv4 = text("accessIPv4").flatMap { $0.isEmpty ? nil : $0 }
        // In canonical form (RFC 5952).
        accessIPv6 = text("accessIPv6").flatMap { $0.isEmpty ? nil : IPAddress($0)?.description ?? $0 }
        adminPass = text("adminPass")
        returnsReservation = server["return_reservation_id"]?.boolValue ?? false
        securityGroups = (server["security_groups"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue }.uniqued
        hints = try body.objectValue?.value(named: ["os:scheduler_hints", "OS-SCH-HNT:scheduler_hints"], of: "body")?.objectValue ?? [:]
        let min = server["min_count"]?.intValue
        let max = server["max_count"]?.intValue
        minCount = min ?? 1
        maxCount = max ?? minCount
        guard minCount <= maxCount else {
            throw ResourceError.badRequest("min_count must be <= max_count: min_count is \(minCount), max_count is \(maxCount).")
        }
        zone = try ZoneRequest(
            text("availability_zone"), host: text("host"), node: text("hypervisor_hostname"))
        networks = try ServerRequest.networks(server["networks"], required: networksRequired)
        imageID = try ServerRequest.image(text("imageRef"))
        devices = try (server["block_device_mapping_v2"]?.arrayValue ?? []).map { try DeviceRequest($0) }
        try settleDevices()
        try check()
    }

    private func check() throws {
        if let userData, userData.utf8.count > 65_535 {
            throw ResourceError.badRequest("Invalid input for field/attribute user_data. It is longer than 65535 bytes.")
        }
        if maxCount > 1, devices.contains(where: { $0.source == .volume }) {
            throw ResourceError.badRequest("Cannot attach one or more volumes to multiple instances")
        }
        if case .interfaces(let list) = networks, maxCount > 1 {
            if list.contains(where: { $0.portID != nil }) {
                throw ResourceError.badRequest(
                    """
                    Unable to launch multiple instances with a single configured port ID. Please launch your \
                    instance one by one with different ports.
                    """
                )
            }
            if list.contains(where: { $0.fixedIP != nil }) {
                throw ResourceError.badRequest("max_count cannot be greater than 1 if an fixed_ip is specified.")
            }
        }
    }

    /// Reconciles `imageRef` with the boot device: an image mapped to the local disk is the server's image.
    package mutating func settleDevices() throws {
        let boots = devices.filter { $0.bootIndex == 0 }
        guard boots.count <= 1 else {
            throw ResourceError.badRequest(
                "Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping combination is not valid.")
        }
        if let boot = boots.first, boot.source == .image, boot.destination == .local {
            if let imageID, imageID != boot.uuid {
                throw ResourceError.badRequest("Block Device Mapping is Invalid: imageRef and the boot device name different images.")
            }
            imageID = boot.uuid
            rootTag = boot.tag
            devices.removeAll { $0 == boot }
        } else if let image = imageID, let boot = boots.first, boot.source == .blank {
            // As in Nova, the server then only takes its properties from the image.
            (imageID, propertiesImageID) = (nil, image)
        } else if imageID != nil, let boot = boots.first {
            // Clients also send `imageRef` when they boot from a volume that is created from the same image.
            guard boot.source == .image, boot.uuid == imageID else {
                throw ResourceError.badRequest(
                    """
                    Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping \
                    combination is not valid.
                    """
                )
            }
            imageID = nil
        }
        guard imageID != nil || devices.contains(where: { $0.bootIndex == 0 }) else {
            throw ResourceError.badRequest(
                devices.isEmpty
                    ? "Missing imageRef attribute"
                    : """
                    Block Device Mapping is Invalid: Boot sequence for the instance and image/block device mapping \
                    combination is not valid.
                    """
            )
        }
        guard devices.count <= 25 else { throw ResourceError.badRequest("block_device_mapping_v2 has more than 25 items.") }
    }

    private static func image(_ text: String?) throws -> String? {
        guard let text, !text.isEmpty else { return nil }
        // An href ends in the id.
        let last = text.split(separator: "/").last.map(String.init) ?? text
        guard let uuid = UUID128(last) else {
            throw ResourceError.badRequest("Invalid imageRef provided. Value: '\(last.prefix(64))'. It must be the id of an image.")
        }
        return uuid.description
    }

    private static func networks(_ value: JSONValue?, required: Bool) throws -> Networks {
        switch value {
        case nil, .null?: return .automatic(required: false)
        case .string("auto")?: return .automatic(required: true)
        case .string("none")?: return .none
        case .array(let list)?:
            if list.isEmpty { return required ? .none : .automatic(required: false) }
            return .interfaces(try list.map { try InterfaceRequest($0) })
        default: throw ResourceError.badRequest("Invalid input for field/attribute networks. It must be auto, none or a list.")
        }
    }
}

/// One entry of `personality`: a file that the guest finds on its config drive and in its metadata.
package struct ServerFile: Sendable, Hashable {
    package let path: String
    /// Base64.
    package let contents: String

    package init(_ value: JSONValue) {
        path = value["path"]?.stringValue ?? ""
        contents = value["contents"]?.stringValue ?? ""
    }

    package var document: JSONValue { ["path": .string(path), "contents": .string(contents)] }

    /// Bytes after decoding, as limits count them.
    package var size: Int { Base64.decode(contents, lineBreaks: true)?.count ?? 0 }
}

/// `az`, `az:host`, `az:host:node` or `az::node`.
package struct ZoneRequest: Sendable, Hashable {
    package var zone: String?
    package var host: String?
    package var node: String?
    /// Whether the host comes with the zone (`zone:host:node`), a form that in Nova goes around the scheduler.
    package var isForced: Bool

    package init(_ text: String?, host: String?, node: String?) throws {
        let parts = (text ?? "").split(separator: ":", omittingEmptySubsequences: false).map(String.init)
        guard parts.count <= 3 else {
            throw ResourceError.badRequest(
                "Unable to parse availability zone '\(text ?? "")': it must be zone, zone:host or zone:host:node.")
        }
        zone = parts.first.flatMap { $0.isEmpty ? nil : $0 }
        let named = parts.count > 1 && !parts[1].isEmpty ? parts[1] : nil
        let node2 = parts.count > 2 && !parts[2].isEmpty ? parts[2] : nil
        if named != nil || node2 != nil, host != nil || node != nil {
            throw ResourceError.badRequest("Unable to combine a host in availability_zone with host or hypervisor_hostname.")
        }
        isForced = named != nil || node2 != nil
        self.host = named ?? host
        self.node = node2 ?? node
    }

    /// The requested host, if any. Each host has one node of the same name.
    package var target: String? { host ?? node }
}

extension ActingSubject {
    /// An administrator, in the form stored in rows and workflows.
    package var document: JSONValue { ["project": .string(project), "user": .string(user)] }

    /// Reads `document`; nil for anything else.
    package init?(administrator value: JSONValue) {
        guard let project = value["project"]?.stringValue, let user = value["user"]?.stringValue else { return nil }
        self.init(project: project, user: user, grounds: .user)
    }
}

/// One entry of `networks`.
package struct InterfaceRequest: Sendable, Hashable {
    package var networkID: String?
    package var portID: String?
    package var fixedIP: String?
    package var tag: String?
    /// The requesting administrator, if the interface was accepted only because of administrator rights. Network authorizes
    /// this user when the port is created or bound.
    package var administrator: ActingSubject?

    package init(networkID: String? = nil, portID: String? = nil, fixedIP: String? = nil, tag: String? = nil) {
        self.networkID = networkID
        self.portID = portID
        self.fixedIP = fixedIP
        self.tag = tag
    }

    /// - Throws: 400 where neither a port nor a network is named.
    package init(_ value: JSONValue) throws {
        networkID = value["uuid"]?.stringValue.flatMap { UUID128($0)?.description }
        portID = value["port"]?.stringValue.flatMap { UUID128($0)?.description }
        fixedIP = value["fixed_ip"]?.stringValue
        tag = value["tag"]?.stringValue
        guard networkID != nil || portID != nil else {
            throw ResourceError.badRequest("Invalid input for field/attribute networks: each item needs a uuid or a port.")
        }
        if portID != nil { networkID = nil }
        if portID != nil, fixedIP != nil {
            throw ResourceError.badRequest(
                "Specified Fixed IP '\(fixedIP ?? "")' cannot be used with port '\(portID ?? "")': the two cannot be specified together.")
        }
    }

    package var document: JSONValue {
        [
            "network": JSONValue(networkID), "port": JSONValue(portID), "fixed_ip": JSONValue(fixedIP),
            "tag": JSONValue(tag), "administrator": administrator?.document ?? .null,
        ]
    }

    /// Reads `document`.
    package init(stored value: JSONValue) {
        administrator = value["administrator"].flatMap(ActingSubject.init(administrator:))
        networkID = value["network"]?.stringValue
        portID = value["port"]?.stringValue
        fixedIP = value["fixed_ip"]?.stringValue
        tag = value["tag"]?.stringValue
    }
}

/// One entry of `block_device_mapping_v2`.
package struct DeviceRequest: Sendable, Hashable {
    /// The source of the disk's content.
    package enum Source: String, Sendable { case image, volume, snapshot, blank }
    /// The location of the disk: a file on the server's host, or a volume.
    package enum Destination: String, Sendable { case local, volume }

    package var source: Source
    package var destination: Destination
    package var uuid: String?
    package var bootIndex: Int?
    /// GiB.
    package var size: Int?
    package var volumeType: String?
    package var deletesOnTermination: Bool
    package var device: String?
    package var tag: String?
    /// For a blank local disk: whether it is the swap disk; otherwise it is the ephemeral disk.
    package var isSwap = false
    /// Whether the entry only removes a device that the image defines.
    package var isRemoval = false

    /// - Throws: 400 with Nova's message.
    package init(_ value: JSONValue) throws {
        device = value["device_name"]?.stringValue.flatMap { $0.isEmpty ? nil : $0 }
        guard value["no_device"]?.boolValue != true else {
            (source, destination, deletesOnTermination, isRemoval) = (.blank, .local, false, true)
            return
        }
        guard let source = value["source_type"]?.stringValue.flatMap(Source.init(rawValue:)) else {
            throw ResourceError.badRequest("Block Device Mapping is Invalid: source_type must be image, volume, snapshot or blank.")
        }
        self.source = source
        let fallback: Destination = source == .volume || source == .snapshot ? .volume : .local
        destination = value["destination_type"]?.stringValue.flatMap(Destination.init(rawValue:)) ?? fallback
        uuid = value["uuid"]?.stringValue.flatMap { UUID128($0)?.description }
        bootIndex = value["boot_index"].flatMap { $0.intValue ?? $0.stringValue.flatMap { Int($0) } }.flatMap { $0 < 0 ? nil : $0 }
        size = value["volume_size"].flatMap { $0.intValue ?? $0.stringValue.flatMap { Int($0) } }
        volumeType = value["volume_type"]?.stringValue
        deletesOnTermination = value["delete_on_termination"]?.boolValue ?? false
        tag = value["tag"]?.stringValue
        isSwap = value["guest_format"]?.stringValue == "swap"
        if isSwap, source != .blank || destination != .local {
            throw ResourceError.badRequest(
                "Block Device Mapping is Invalid: guest_format swap needs source_type blank and destination_type local.")
        }
        if source == .blank, uuid != nil { throw ResourceError.badRequest("Block Device Mapping is Invalid: Invalid device UUID.") }
        if source == .blank, destination == .local, bootIndex == 0 {
            throw ResourceError.badRequest("Block Device Mapping is Invalid: a blank local disk cannot be booted from.")
        }
        if source == .image, destination == .local, bootIndex != 0 {
            throw ResourceError.badRequest("Block Device Mapping is Invalid: Mapping image to local is not supported.")
        }
        if source != .blank, uuid == nil {
            throw ResourceError.badRequest("Block Device Mapping is Invalid: a mapping with source_type \(source.rawValue) needs a uuid.")
        }
        if source == .volume || source == .snapshot, destination != .volume {
            throw ResourceError.badRequest("Block Device Mapping is Invalid: source_type \(source.rawValue) needs destination_type volume.")
        }
        if source == .blank || source == .image, destination == .volume, size == nil {
            throw ResourceError.badRequest(
                "Block Device Mapping is Invalid: Images and blank volumes with destination_type volume need a volume_size.")
        }
        if let size, size < 1 { throw ResourceError.badRequest("Block Device Mapping is Invalid: volume_size must be at least 1.") }
    }

    package var document: JSONValue {
        [
            "source": .string(source.rawValue), "destination": .string(destination.rawValue), "uuid": JSONValue(uuid),
            "boot_index": bootIndex.map { JSONValue($0) } ?? .null, "size": size.map { JSONValue($0) } ?? .null,
            "volume_type": JSONValue(volumeType), "delete_on_termination": .bool(deletesOnTermination),
            "device": JSONValue(device), "tag": JSONValue(tag),
        ]
    }

    /// Reads `document`.
    package init(stored value: JSONValue) {
        source = value["source"]?.stringValue.flatMap(Source.init(rawValue:)) ?? .blank
        destination = value["destination"]?.stringValue.flatMap(Destination.init(rawValue:)) ?? .volume
        uuid = value["uuid"]?.stringValue
        bootIndex = value["boot_index"]?.intValue
        size = value["size"]?.intValue
        volumeType = value["volume_type"]?.stringValue
        deletesOnTermination = value["delete_on_termination"]?.boolValue ?? false
        device = value["device"]?.stringValue
        tag = value["tag"]?.stringValue
    }
}

/// The guest's host name.
package enum HostName {
    /// A host name (RFC 1123) derived from a server's name: other characters are removed or replaced by dashes.
    package static func sanitized(_ name: String, fallback: String) -> String {
        var text = ""
        for byte in name.lowercased().utf8 {
            switch byte {
            case 48...57, 97...122, UInt8(ascii: "-"): text.unicodeScalars.append(Unicode.Scalar(byte))
            case UInt8(ascii: "_"), UInt8(ascii: " "), UInt8(ascii: "."): text += "-"
            default: break
            }
        }
        while text.hasPrefix("-") { text.removeFirst() }
        text = String(text.prefix(63))
        while text.hasSuffix("-") { text.removeLast() }
        return text.isEmpty ? fallback : text
    }
}

/// Names of disks as guests see them: `/dev/vda`, `/dev/vdb`, …
package enum DeviceNames {
    /// The first free name; nil if all are taken. The last three letters are reserved for the agent's local disks.
    package static func free(taken: Set<String>) -> String? {
        for letter in "abcdefghijklmnopqrstuvw" {
            let name = "/dev/vd\(letter)"
            if !taken.contains(name) { return name }
        }
        return nil
    }
}

extension Array where Element: Hashable {
    /// Each element once, in the order of first appearance.
    package var uniqued: [Element] {
        var seen: Set<Element> = []
        return filter { seen.insert($0).inserted }
    }
}

extension String {
    package var trimmedSpaces: String {
        var text = Substring(self)
        while text.first?.isWhitespace == true { text.removeFirst() }
        while text.last?.isWhitespace == true { text.removeLast() }
        return String(text)
    }
}
