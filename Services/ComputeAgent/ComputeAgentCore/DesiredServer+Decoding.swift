import Contracts
package import JSON
import Kernel

extension DesiredServer {
    /// Largest numbers an agent believes; they are far above what a host can have.
    private enum Bounds {
        static let vcpus = 1...1024
        static let memoryMiB = 1...(64 * 1024 * 1024)
        static let diskGiB = 0...(1024 * 1024)
        static let swapMiB = 0...(1024 * 1024 * 1024)
        static let ports = 64
        static let volumes = 64
        static let jobs = 16
    }

    /// Reads the plane's form of a server.
    ///
    /// Members that this version does not know are ignored, so that plane and agents can be upgraded one by one.
    ///
    /// - Throws: `FormError` naming the member that is missing or of the wrong kind.
    package static func decode(_ value: JSONValue) throws(FormError) -> DesiredServer {
        try DesiredServer(try FormError.wrap("server") { try value.decode(as: ServerSpec.self) }, source: value)
    }

    /// Checks the rules that the types cannot express.
    ///
    /// - Throws: `FormError` naming the member and the rule.
    private init(_ spec: ServerSpec, source: JSONValue) throws(FormError) {
        let form = FormRules("server")
        let ports = try form.list("ports", spec.ports, DesiredPort.init)
        let volumes = try form.list("volumes", spec.volumes, DesiredVolume.init)
        guard ports.count <= Bounds.ports, Set(ports.map(\.id)).count == ports.count else {
            throw form.wrong("ports", "must be at most \(Bounds.ports) different ports")
        }
        guard volumes.count <= Bounds.volumes, Set(volumes.map(\.volumeID)).count == volumes.count,
            Set(volumes.map(\.device)).count == volumes.count
        else { throw form.wrong("volumes", "must be at most \(Bounds.volumes) different volumes and devices") }
        id = try form.uuid("id", spec.id)
        (name, hostname, projectID, userID) = (spec.name, spec.hostname, spec.projectID, spec.userID)
        generation = try form.integer("generation", spec.generation, in: 0...Int.max)
        epoch = try form.integer("epoch", spec.epoch, in: 0...Int.max)
        power = spec.power
        operation = try spec.operation.map { (operation) throws(FormError) in try ServerOperation(operation, form.inner("operation")) }
        jobs = try form.list("jobs", spec.jobs ?? []) { (job, form) throws(FormError) in try job.checked(form) }
        guard jobs.count <= Bounds.jobs, Set(jobs.map(\.id)).count == jobs.count else {
            throw form.wrong("jobs", "must be at most \(Bounds.jobs) different jobs")
        }
        vcpus = try form.integer("vcpus", spec.vcpus, in: Bounds.vcpus)
        memoryMiB = try form.integer("memory_mb", spec.memoryMiB, in: Bounds.memoryMiB)
        rootGiB = try form.integer("root_gb", spec.rootGiB, in: Bounds.diskGiB)
        ephemeralGiB = try form.integer("ephemeral_gb", spec.ephemeralGiB, in: Bounds.diskGiB)
        swapMiB = try form.integer("swap_mb", spec.swapMiB, in: Bounds.swapMiB)
        extraSpecs = spec.extraSpecs.texts
        image = try spec.image.map { (image) throws(FormError) in
            try DesiredImage(image, project: spec.projectID, user: spec.userID, form.inner("image"))
        }
        imageProperties = (image?.properties ?? [:]).merging(spec.imageProperties?.texts ?? [:]) { $1 }
        isHardwareChecked = spec.isHardwareChecked ?? false
        rescue = try spec.rescue.map { (rescue) throws(FormError) in try DesiredRescue(rescue, of: spec, form.inner("rescue")) }
        keepsDisks = spec.keepsDisks ?? false
        let sources = try form.list("disk_sources", spec.diskSources ?? []) { (source, form) throws(FormError) in
            (source.disk, try DesiredImage(source.image, project: spec.projectID, user: spec.userID, form.inner("image")))
        }
        diskSources = Dictionary(sources) { $1 }
        self.volumes = volumes
        self.ports = ports
        (metadata, networkData) = (spec.metadata, spec.networkData)
        let text = spec.userData ?? ""
        userData = text.isEmpty ? nil : try form.base64("user_data", text)
        files = try form.list("personality", spec.files ?? []) { (file, form) throws(FormError) in
            DesiredFile(path: file.path, contents: try form.base64("contents", file.contents))
        }
        (configDrive, guestPassword) = (spec.configDrive, spec.guestPassword)
        floatingIPs = try form.list("floating_ips", spec.floatingIPs ?? []) { (address, form) throws(FormError) in
            try form.address("address", address)
        }
        securityGroups = spec.securityGroups ?? []
        processorDefinitions = spec.processorDefinitions ?? []
        self.source = source
    }

    fileprivate static func disk(_ form: FormRules, _ name: String, _ size: Int) throws(FormError) -> Int {
        try form.integer(name, size, in: Bounds.diskGiB)
    }
}

extension ServerOperation {
    fileprivate init(_ operation: ServerSpec.Operation, _ form: FormRules) throws(FormError) {
        guard let kind = Kind(rawValue: operation.kind.rawValue) else {
            throw form.wrong("kind", "\"\(operation.kind)\" is not supported by this agent")
        }
        self.init(id: operation.id, kind: kind, preservesEphemeral: operation.preservesEphemeral ?? false)
    }
}

extension DesiredRescue {
    fileprivate init(_ rescue: ServerSpec.Rescue, of server: ServerSpec, _ form: FormRules) throws(FormError) {
        guard let device = Device(rawValue: rescue.device) else { throw form.wrong("device", "must be disk or cdrom") }
        guard let bus = Bus(rawValue: rescue.bus) else { throw form.wrong("bus", "must be virtio, scsi, sata, ide or usb") }
        self.init(
            image: try DesiredImage(rescue.image, project: server.projectID, user: server.userID, form.inner("image")),
            isStable: rescue.isStable, device: device, bus: bus)
    }
}

extension ServerJob {
    /// - Throws: `FormError` for invalid ids, because ids become parts of paths.
    fileprivate func checked(_ form: FormRules) throws(FormError) -> ServerJob {
        var job = self
        job.id = try form.uuid("id", id)
        if let upload { job.upload?.imageID = try form.inner("upload").uuid("image_id", upload.imageID) }
        if let migration {
            let inner = form.inner("migration")
            let endpoint = migration.endpoint
            guard MigrationXML.isUsable(uri: endpoint.uri), endpoint.address.map(MigrationXML.isUsable(address:)) ?? true,
                endpoint.directory.hasPrefix("/"), endpoint.emulator.map({ $0.hasPrefix("/") }) ?? true
            else { throw inner.wrong("endpoint", "must have a connection URI of libvirt's QEMU driver, an address and absolute paths") }
            _ = try inner.list("volumes", migration.volumes, DesiredVolume.init)
        }
        if let swap {
            let inner = form.inner("swap")
            job.swap?.volumeID = try inner.uuid("volume_id", swap.volumeID)
            _ = try DesiredVolume(swap.replacement, inner.inner("replacement"))
            job.swap?.sizeGiB = try DesiredServer.disk(inner, "size_gb", swap.sizeGiB)
        }
        if let copies {
            let inner = form.inner("copies")
            job.copies?.volumes = try inner.list("volumes", copies.volumes) { (volume, form) throws(FormError) in try volume.checked(form) }
        }
        return job
    }
}

extension ServerJob.VolumeCopies.Volume {
    fileprivate func checked(_ form: FormRules) throws(FormError) -> Self {
        var volume = self
        volume.id = try form.uuid("id", id)
        guard path.hasPrefix("/"), path.hasSuffix(".part"), !path.contains("/../"), !path.utf8.contains(0) else {
            throw form.wrong("path", "must be the absolute path of a file that ends in .part")
        }
        guard ["raw", "qcow2"].contains(format) else { throw form.wrong("format", "must be raw or qcow2") }
        volume.sizeGiB = try DesiredServer.disk(form, "size_gb", sizeGiB)
        return volume
    }
}

extension DesiredImage {
    init(_ image: ServerSpec.Image, project: String, user: String, _ form: FormRules) throws(FormError) {
        let administrator = image.administrator?.subject
        self.init(
            id: try form.uuid("id", image.id), checksum: image.checksum, hashAlgorithm: image.hashAlgorithm,
            contentHash: image.contentHash, diskFormat: image.diskFormat, size: image.size,
            minDiskGiB: try DesiredServer.disk(form, "min_disk", image.minDiskGiB ?? 0), diskGiB: image.diskGiB,
            properties: image.properties.texts, isCopied: image.isCopied ?? false,
            subject: .accepted(project: project, user: user, administrator: administrator))
    }
}

extension DesiredVolume {
    init(_ volume: ServerSpec.Volume, _ form: FormRules) throws(FormError) {
        let name = volume.device.hasPrefix("/dev/") ? String(volume.device.dropFirst(5)) : volume.device
        guard name.hasPrefix("vd"), (3...4).contains(name.utf8.count), name.utf8.dropFirst(2).allSatisfy({ (97...122).contains($0) })
        else { throw form.wrong("device", "must be a virtio disk name such as vdb") }
        self.init(
            volumeID: try form.uuid("volume_id", volume.id), attachmentID: volume.attachmentID, device: name,
            bootIndex: volume.bootIndex, connection: try DesiredVolume.connection(volume, form),
            isShared: try DesiredVolume.isShared(volume, form),
            sizeGiB: try volume.sizeGiB.map { (size) throws(FormError) in try form.integer("size_gb", size, in: 1...1 << 20) })
    }

    /// - Throws: `FormError` for a shared volume in a format that several guests cannot write.
    private static func isShared(_ volume: ServerSpec.Volume, _ form: FormRules) throws(FormError) -> Bool {
        let inner = form.inner("connection")
        let connection = try FormError.wrap(inner.path) { try volume.connection.read() }
        guard connection.isMultiattach ?? false else { return false }
        guard connection.driver == "file", connection.format == "raw" else {
            throw inner.wrong("multiattach", "is possible with raw files only")
        }
        return true
    }

    /// How a host reaches the volume.
    static func connection(_ volume: ServerSpec.Volume, _ form: FormRules = FormRules("volume")) throws(FormError) -> VolumeConnection {
        let inner = form.inner("connection")
        return try VolumeConnection(try FormError.wrap(inner.path) { try volume.connection.read() }, inner)
    }
}

extension VolumeConnection {
    fileprivate init(_ connection: ServerSpec.Connection, _ form: FormRules) throws(FormError) {
        switch connection.driver {
        case "file":
            let path = try form.present("path", connection.path)
            guard path.hasPrefix("/") else { throw form.wrong("path", "must be absolute") }
            let format = try form.present("format", connection.format)
            guard format == "raw" || format == "qcow2" else { throw form.wrong("format", "must be raw or qcow2") }
            self = .file(path: path, format: format, readOnly: connection.readOnly ?? false)
        case "nbd":
            self = .nbd(
                host: try form.present("host", connection.host),
                port: try form.integer("port", try form.present("port", connection.port), in: 1...65535), export: connection.export ?? "")
        case let other: throw form.wrong("driver", "\"\(other)\" is not supported by this agent")
        }
    }
}

extension DesiredAddress {
    fileprivate init(_ fixed: ServerSpec.PortAddress, _ form: FormRules) throws(FormError) {
        self.init(
            address: try form.address("ip_address", fixed.address), subnetID: fixed.subnetID, cidr: try form.network("cidr", fixed.cidr),
            gateway: try fixed.gateway.map { (gateway) throws(FormError) in try form.address("gateway_ip", gateway) })
    }
}

extension MetadataPort {
    fileprivate init(_ port: ServerSpec.MetadataPort, _ form: FormRules) throws(FormError) {
        self.init(
            id: try form.uuid("id", port.id), mac: try form.mac("mac_address", port.mac),
            fixedIPs: try form.list("fixed_ips", port.fixedIPs, DesiredAddress.init))
    }
}

extension DesiredPort {
    fileprivate init(_ port: ServerSpec.Port, _ form: FormRules) throws(FormError) {
        guard port.vifType == "ovs" else { throw form.wrong("vif_type", "\"\(port.vifType)\" is not supported by this agent") }
        self.init(
            id: try form.uuid("id", port.id), networkID: try form.uuid("network_id", port.networkID),
            mac: try form.mac("mac_address", port.mac), mtu: try form.integer("mtu", port.mtu, in: 68...65535),
            fixedIPs: try form.list("fixed_ips", port.fixedIPs, DesiredAddress.init),
            metadataPort: try port.metadataPort.map { (inner) throws(FormError) in try MetadataPort(inner, form.inner("metadata_port")) },
            tag: port.tag, isSecured: port.isSecured ?? true)
    }
}
