import JSON
import Kernel

extension DesiredServer {
    /// Largest numbers an agent believes; they are far above what a host can have.
    private enum Bounds {
        static let vcpus = 1...1024
        static let memoryMiB = 1...(64 * 1024 * 1024)
        static let diskGiB = 0...(1024 * 1024)
        static let ports = 64
        static let volumes = 64
    }

    /// Reads the plane's form of a server.
    ///
    /// Members that this version does not know are ignored, so that plane and agents can be upgraded one by one.
    ///
    /// - Throws: `FormError` naming the member that is missing or of the wrong kind.
    package static func decode(_ value: JSONValue) throws(FormError) -> DesiredServer {
        let fields = try FieldReader(value, path: "server")
        guard let power = DesiredPower(rawValue: try fields.text("power")) else {
            throw fields.wrong("power", "must be one of " + DesiredPower.allCases.map(\.rawValue).joined(separator: ", "))
        }
        let id = try fields.uuid("id")
        let ports = try fields.list("ports", port)
        let volumes = try fields.list("volumes", volume)
        guard ports.count <= Bounds.ports, Set(ports.map(\.id)).count == ports.count else {
            throw fields.wrong("ports", "must be at most \(Bounds.ports) different ports")
        }
        guard volumes.count <= Bounds.volumes, Set(volumes.map(\.volumeID)).count == volumes.count,
            Set(volumes.map(\.device)).count == volumes.count
        else { throw fields.wrong("volumes", "must be at most \(Bounds.volumes) different volumes and devices") }
        let image = try image(fields)
        return DesiredServer(
            id: id, name: try fields.optionalText("name") ?? id,
            projectID: try fields.text("project_id"), userID: try fields.optionalText("user_id") ?? "",
            generation: try fields.integer("generation", in: 0...Int.max),
            epoch: try fields.integer("epoch", in: 0...Int.max), power: power,
            operation: try operation(fields),
            vcpus: try fields.integer("vcpus", in: Bounds.vcpus),
            memoryMiB: try fields.integer("memory_mb", in: Bounds.memoryMiB),
            rootGiB: try fields.integer("root_gb", in: Bounds.diskGiB, default: 0),
            ephemeralGiB: try fields.integer("ephemeral_gb", in: Bounds.diskGiB, default: 0),
            swapMiB: try fields.integer("swap_mb", in: 0...(1024 * 1024 * 1024), default: 0),
            extraSpecs: texts(try fields.object("extra_specs")), image: image,
            // A plane of the release before says it with the image alone.
            imageProperties: (image?.properties ?? [:]).merging(texts(try fields.object("image_properties"))) { $1 },
            volumes: volumes,
            ports: ports, metadata: try fields.object("metadata"), networkData: try fields.object("network_data"),
            userData: try userData(fields), files: try fields.list("personality", file), configDrive: try fields.flag("config_drive", default: false),
            hostname: try fields.optionalText("hostname") ?? id, source: value)
    }

    /// Properties come as text, but a number or a flag means the same.
    private static func texts(_ object: JSONObject) -> [String: String] {
        var result: [String: String] = [:]
        for (name, value) in object.members {
            switch value {
            case .string(let text): result[name] = text
            case .integer(let number): result[name] = String(number)
            case .bool(let flag): result[name] = String(flag)
            case .double, .null, .array, .object: continue
            }
        }
        return result
    }

    private static func operation(_ fields: FieldReader) throws(FormError) -> ServerOperation? {
        guard let operation = try fields.optionalFields("operation") else { return nil }
        guard let kind = ServerOperation.Kind(rawValue: try operation.text("kind")) else {
            throw operation.wrong("kind", "must be reboot-soft or reboot-hard")
        }
        return ServerOperation(id: try operation.text("id"), kind: kind)
    }

    private static func userData(_ fields: FieldReader) throws(FormError) -> [UInt8]? {
        guard let text = try fields.optionalText("user_data"), !text.isEmpty else { return nil }
        guard let bytes = Base64.decode(text, lineBreaks: true) else { throw fields.wrong("user_data", "must be base64") }
        return bytes
    }

    private static func file(_ fields: FieldReader) throws(FormError) -> DesiredFile {
        guard let bytes = Base64.decode(try fields.text("contents"), lineBreaks: true) else {
            throw fields.wrong("contents", "must be base64")
        }
        return DesiredFile(path: try fields.text("path"), contents: bytes)
    }

    private static func image(_ fields: FieldReader) throws(FormError) -> DesiredImage? {
        guard let image = try fields.optionalFields("image") else { return nil }
        return DesiredImage(
            id: try image.uuid("id"), checksum: try image.optionalText("checksum"),
            hashAlgorithm: try image.optionalText("os_hash_algo"), contentHash: try image.optionalText("os_hash_value"),
            diskFormat: try image.text("disk_format"), size: try image.optionalInteger("size"),
            minDiskGiB: try image.integer("min_disk", in: Bounds.diskGiB, default: 0),
            diskGiB: try image.optionalInteger("disk_gb"),
            properties: texts(try image.object("properties")),
            subject: try subject(fields, image))
    }

    private static func subject(_ fields: FieldReader, _ image: FieldReader) throws(FormError) -> ActingSubject {
        if let administrator = try image.optionalFields("administrator") {
            return ActingSubject(
                project: try administrator.text("project"), user: try administrator.text("user"), grounds: .user)
        }
        return .accepted(project: try fields.text("project_id"), user: try fields.text("user_id"))
    }

    private static func volume(_ fields: FieldReader) throws(FormError) -> DesiredVolume {
        let connection = try fields.fields("connection")
        let device = try fields.text("device")
        let name = device.hasPrefix("/dev/") ? String(device.dropFirst(5)) : device
        guard name.hasPrefix("vd"), (3...4).contains(name.utf8.count),
            name.utf8.dropFirst(2).allSatisfy({ (97...122).contains($0) })
        else { throw fields.wrong("device", "must be a virtio disk name such as vdb") }
        return DesiredVolume(
            volumeID: try fields.uuid("volume_id"), attachmentID: try fields.text("attachment_id"), device: name,
            bootIndex: try fields.optionalInteger("boot_index"), connection: try volumeConnection(connection))
    }

    private static func volumeConnection(_ fields: FieldReader) throws(FormError) -> VolumeConnection {
        switch try fields.text("driver") {
        case "file":
            let path = try fields.text("path")
            guard path.hasPrefix("/") else { throw fields.wrong("path", "must be absolute") }
            let format = try fields.text("format")
            guard format == "raw" || format == "qcow2" else { throw fields.wrong("format", "must be raw or qcow2") }
            return .file(path: path, format: format, readOnly: try fields.flag("read_only", default: false))
        case "nbd":
            return .nbd(
                host: try fields.text("host"), port: try fields.integer("port", in: 1...65535),
                export: try fields.optionalText("export") ?? "")
        case let other: throw fields.wrong("driver", "\"\(other)\" is not supported by this agent")
        }
    }

    private static func fixedIP(_ fields: FieldReader) throws(FormError) -> FixedIP {
        FixedIP(
            address: try fields.address("ip_address"), subnetID: try fields.optionalText("subnet_id"),
            cidr: try fields.network("cidr"), gateway: try fields.optionalAddress("gateway_ip"))
    }

    private static func port(_ fields: FieldReader) throws(FormError) -> DesiredPort {
        let type = try fields.optionalText("vif_type") ?? "ovs"
        guard type == "ovs" else { throw fields.wrong("vif_type", "\"\(type)\" is not supported by this agent") }
        var metadataPort: MetadataPort?
        if let port = try fields.optionalFields("metadata_port") {
            metadataPort = MetadataPort(
                id: try port.uuid("id"), mac: try port.mac("mac_address"),
                fixedIPs: try port.list("fixed_ips", fixedIP))
        }
        return DesiredPort(
            id: try fields.uuid("id"), networkID: try fields.uuid("network_id"), mac: try fields.mac("mac_address"),
            mtu: try fields.integer("mtu", in: 68...65535, default: 1442),
            fixedIPs: try fields.list("fixed_ips", fixedIP), metadataPort: metadataPort,
            tag: try fields.optionalText("tag"), isSecured: try fields.flag("port_security_enabled", default: true))
    }
}
