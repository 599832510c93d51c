package import JSON

/// The desired power state of a server.
package enum DesiredPower: String, Codable, Sendable, Hashable, CaseIterable {
    case running, shutoff, paused, suspended
    /// The host prepares everything for the guest but does not start it, because the running guest arrives from another host. Older agents
    /// refuse this value.
    case expected
    /// Nothing of the server may remain on the host.
    case absent
}

/// The complete desired state of a server on its host, level-triggered. Compute writes it, the host's agent reads it and
/// keeps it in the server's state file.
///
/// Values are unchecked; the agent's `DesiredServer` validates them.
package struct ServerSpec: Codable, Sendable, Hashable {
    package var id: String
    package var name: String
    package var projectID: String
    package var userID: String
    /// Grows with every change of the desired state.
    package var generation: Int
    /// Incremented with every lease of the server's workflow.
    package var epoch: Int
    package var power: DesiredPower
    package var operation: Operation?
    /// Long-running work in addition to this state. Nil, as from release 0.1.0, means none.
    package var jobs: [ServerJob]?
    package var vcpus: Int
    package var memoryMiB: Int
    package var rootGiB: Int
    package var ephemeralGiB: Int
    package var swapMiB: Int
    package var extraSpecs: TextMap
    /// Nil if the server boots from a volume.
    package var image: Image?
    /// Properties of the image, or of the image from which the boot volume was created. Nil, as from release 0.1.0, means those of `image`.
    package var imageProperties: TextMap?
    /// Whether the guest hardware that `extraSpecs` and `imageProperties` request was checked. Nil, as from release 0.1.0, means no: the
    /// guest then only has the hardware that release 0.1.0 supported.
    package var isHardwareChecked: Bool?
    /// The rescue system of a rescued server; nil otherwise, and from earlier releases.
    package var rescue: Rescue?
    /// Whether copies of disks that a resize has changed are kept for its reversal. With `absent`: whether the disks stay on the host,
    /// because the server may return to it. Nil means no.
    package var keepsDisks: Bool?
    /// Images from which the host creates missing disks: copies of the server's disks on its previous host. Nil means none.
    package var diskSources: [DiskSource]?
    package var volumes: [Volume]
    package var ports: [Port]
    /// The complete `meta_data.json`.
    package var metadata: JSONObject
    package var networkData: JSONObject
    /// In base64.
    package var userData: String?
    /// Files to inject. Release 0.1.0 has none.
    package var files: [File]?
    package var configDrive: Bool
    package var hostname: String
    /// The password that the guest posted to the metadata service. Nil if there is none, and from releases before 0.2.0.
    package var guestPassword: String?
    /// The server's floating IPs and the names of its ports' security groups, for the EC2 metadata. Releases before 0.2.0 have neither.
    package var floatingIPs: [String]?
    package var securityGroups: [String]?
    /// `<cpu>` elements of the hosts that the guest must be able to move between; the guest gets their common features. Nil, as from
    /// releases before 0.2.0, means the host's configured processor.
    package var processorDefinitions: [String]?

    private enum CodingKeys: String, CodingKey {
        case id, name, generation, epoch, power, operation, jobs, vcpus, image, rescue, volumes, ports, metadata, hostname
        case projectID = "project_id"
        case userID = "user_id"
        case memoryMiB = "memory_mb"
        case rootGiB = "root_gb"
        case ephemeralGiB = "ephemeral_gb"
        case swapMiB = "swap_mb"
        case extraSpecs = "extra_specs"
        case imageProperties = "image_properties"
        case isHardwareChecked = "hardware_checked"
        case networkData = "network_data"
        case userData = "user_data"
        case files = "personality"
        case configDrive = "config_drive"
        case guestPassword = "guest_password"
        case keepsDisks = "keep_disks"
        case diskSources = "disk_sources"
        case floatingIPs = "floating_ips"
        case securityGroups = "security_groups"
        case processorDefinitions = "processor_definitions"
    }

    package init(
        id: String, name: String, projectID: String, userID: String, generation: Int, epoch: Int, power: DesiredPower,
        operation: Operation?,
        vcpus: Int, memoryMiB: Int, rootGiB: Int, ephemeralGiB: Int, swapMiB: Int, extraSpecs: TextMap, image: Image?,
        imageProperties: TextMap?, rescue: Rescue? = nil, keepsDisks: Bool? = nil,
        volumes: [Volume], ports: [Port], metadata: JSONObject, networkData: JSONObject, userData: String?, files: [File]?,
        configDrive: Bool, hostname: String, guestPassword: String? = nil, jobs: [ServerJob]? = nil,
        floatingIPs: [String]? = nil, securityGroups: [String]? = nil, isHardwareChecked: Bool? = nil,
        diskSources: [DiskSource]? = nil, processorDefinitions: [String]? = nil
    ) {
        self.diskSources = diskSources
        self.isHardwareChecked = isHardwareChecked
        self.id = id
        self.name = name
        self.projectID = projectID
        self.userID = userID
        self.generation = generation
        self.epoch = epoch
        self.power = power
        self.operation = operation
        self.jobs = jobs
        self.vcpus = vcpus
        self.memoryMiB = memoryMiB
        self.rootGiB = rootGiB
        self.ephemeralGiB = ephemeralGiB
        self.swapMiB = swapMiB
        self.extraSpecs = extraSpecs
        self.image = image
        self.imageProperties = imageProperties
        self.rescue = rescue
        self.keepsDisks = keepsDisks
        self.volumes = volumes
        self.ports = ports
        self.metadata = metadata
        self.networkData = networkData
        self.userData = userData
        self.files = files
        self.configDrive = configDrive
        self.hostname = hostname
        self.guestPassword = guestPassword
        self.floatingIPs = floatingIPs
        self.securityGroups = securityGroups
        self.processorDefinitions = processorDefinitions
    }
}

extension ServerSpec {
    /// A local disk of the server.
    package enum LocalDisk: String, Codable, Sendable { case root, ephemeral }

    /// The image with the content of a disk.
    package struct DiskSource: Codable, Sendable, Hashable {
        package var disk: LocalDisk
        package var image: Image

        package init(disk: LocalDisk, image: Image) {
            self.disk = disk
            self.image = image
        }
    }

    /// A one-time operation in addition to the desired state: done once per id.
    package struct Operation: Codable, Sendable, Hashable {
        package var id: String
        package var kind: Kind
        /// For `rebuild`: whether the ephemeral disk keeps its content. Nil means no.
        package var preservesEphemeral: Bool?

        private enum CodingKeys: String, CodingKey {
            case id, kind
            case preservesEphemeral = "preserve_ephemeral"
        }

        package init(id: String, kind: Kind, preservesEphemeral: Bool? = nil) {
            self.id = id
            self.kind = kind
            self.preservesEphemeral = preservesEphemeral
        }
    }

    /// The system of a rescued server. Compute keeps it in `servers.rescue`.
    package struct Rescue: Codable, Sendable, Hashable {
        package var image: Image
        /// Whether the server's disks keep their device names and the rescue disk is added to them (stable device rescue). If not, it has
        /// the rescue disk as its first disk and its own root disk as the second, and no volumes.
        package var isStable: Bool
        /// `disk` or `cdrom`.
        package var device: String
        /// `virtio`, `scsi`, `sata`, `ide` or `usb`.
        package var bus: String

        private enum CodingKeys: String, CodingKey {
            case image, device, bus
            case isStable = "stable"
        }

        package init(image: Image, isStable: Bool, device: String, bus: String) {
            self.image = image
            self.isStable = isStable
            self.device = device
            self.bus = bus
        }
    }

    /// The image of a local root disk. Compute keeps it in `servers.image`.
    package struct Image: Codable, Sendable, Hashable {
        package var id: String
        /// MD5 in hexadecimal.
        package var checksum: String?
        package var hashAlgorithm: String?
        package var contentHash: String?
        package var diskFormat: String
        /// Bytes.
        package var size: Int?
        package var minDiskGiB: Int?
        /// The size of the root disk if the flavor does not have one.
        package var diskGiB: Int?
        package var properties: TextMap
        /// The administrator on whose behalf the image is downloaded. Nil if the project has access itself, and from release 0.1.0.
        package var administrator: RecordedSubject?
        /// Whether the root disk is a full copy of the image, because the image will be deleted. Nil means no.
        package var isCopied: Bool?

        private enum CodingKeys: String, CodingKey {
            case id, checksum, size, properties, administrator
            case hashAlgorithm = "os_hash_algo"
            case contentHash = "os_hash_value"
            case diskFormat = "disk_format"
            case minDiskGiB = "min_disk"
            case diskGiB = "disk_gb"
            case isCopied = "copied"
        }

        package init(
            id: String, checksum: String?, hashAlgorithm: String?, contentHash: String?, diskFormat: String, size: Int?,
            minDiskGiB: Int?, diskGiB: Int?, properties: TextMap, administrator: RecordedSubject? = nil, isCopied: Bool? = nil
        ) {
            self.id = id
            self.checksum = checksum
            self.hashAlgorithm = hashAlgorithm
            self.contentHash = contentHash
            self.diskFormat = diskFormat
            self.size = size
            self.minDiskGiB = minDiskGiB
            self.diskGiB = diskGiB
            self.properties = properties
            self.administrator = administrator
            self.isCopied = isCopied
        }
    }

    /// How QEMU accesses a volume: Block Storage's `connection_info`, which Compute passes on unchanged.
    package struct Connection: Codable, Sendable, Hashable {
        /// `file` or `nbd`.
        package var driver: String
        /// The path of a `file`.
        package var path: String?
        package var format: String?
        /// Whether the volume is read-only; nil means no.
        package var readOnly: Bool?
        /// Whether other servers may use it at the same time; nil means no.
        package var isMultiattach: Bool?
        /// The address of an NBD server.
        package var host: String?
        package var port: Int?
        package var export: String?

        private enum CodingKeys: String, CodingKey {
            case driver, path, format, host, port, export
            case readOnly = "read_only"
            case isMultiattach = "multiattach"
        }
    }

    /// A volume of the server.
    package struct Volume: Codable, Sendable, Hashable {
        package var id: String
        package var attachmentID: String
        /// The target name (`vdb`).
        package var device: String
        /// 0 if the server boots from it.
        package var bootIndex: Int?
        package var connection: Enclosed<Connection>
        /// The least size of the disk. A volume can be extended while the server has it. Releases before 0.2.0 do not send it.
        package var sizeGiB: Int?

        private enum CodingKeys: String, CodingKey {
            case device, connection
            case id = "volume_id"
            case attachmentID = "attachment_id"
            case bootIndex = "boot_index"
            case sizeGiB = "size_gb"
        }

        package init(
            id: String, attachmentID: String, device: String, bootIndex: Int?, connection: Enclosed<Connection>, sizeGiB: Int? = nil
        ) {
            self.sizeGiB = sizeGiB
            self.id = id
            self.attachmentID = attachmentID
            self.device = device
            self.bootIndex = bootIndex
            self.connection = connection
        }
    }

    /// An address of a port.
    package struct PortAddress: Codable, Sendable, Hashable {
        package var address: String
        package var subnetID: String?
        package var cidr: String
        package var gateway: String?

        private enum CodingKeys: String, CodingKey {
            case cidr
            case address = "ip_address"
            case subnetID = "subnet_id"
            case gateway = "gateway_ip"
        }

        package init(address: String, subnetID: String?, cidr: String, gateway: String?) {
            self.address = address
            self.subnetID = subnetID
            self.cidr = cidr
            self.gateway = gateway
        }
    }

    /// The network's own port on every hypervisor, at which the metadata service answers.
    package struct MetadataPort: Codable, Sendable, Hashable {
        package var id: String
        package var mac: String
        package var fixedIPs: [PortAddress]

        private enum CodingKeys: String, CodingKey {
            case id
            case mac = "mac_address"
            case fixedIPs = "fixed_ips"
        }

        package init(id: String, mac: String, fixedIPs: [PortAddress]) {
            self.id = id
            self.mac = mac
            self.fixedIPs = fixedIPs
        }
    }

    /// A network interface of the server.
    package struct Port: Codable, Sendable, Hashable {
        package var id: String
        package var networkID: String
        package var mac: String
        /// Bytes.
        package var mtu: Int
        package var fixedIPs: [PortAddress]
        /// How the host plugs it: `ovs`.
        package var vifType: String
        /// Nil if the network has none.
        package var metadataPort: MetadataPort?
        package var tag: String?
        /// Whether port security is on. Nil, as from release 0.1.0, means yes.
        package var isSecured: Bool?

        private enum CodingKeys: String, CodingKey {
            case id, mtu, tag
            case networkID = "network_id"
            case mac = "mac_address"
            case fixedIPs = "fixed_ips"
            case vifType = "vif_type"
            case metadataPort = "metadata_port"
            case isSecured = "port_security_enabled"
        }

        package init(
            id: String, networkID: String, mac: String, mtu: Int, fixedIPs: [PortAddress], vifType: String = "ovs",
            metadataPort: MetadataPort?,
            tag: String?, isSecured: Bool?
        ) {
            self.id = id
            self.networkID = networkID
            self.mac = mac
            self.mtu = mtu
            self.fixedIPs = fixedIPs
            self.vifType = vifType
            self.metadataPort = metadataPort
            self.tag = tag
            self.isSecured = isSecured
        }
    }

    /// A file that the guest finds on its config drive and in its metadata. Compute keeps it in `servers.personality`.
    package struct File: Codable, Sendable, Hashable {
        /// Path inside the guest.
        package var path: String
        /// In base64.
        package var contents: String

        package init(path: String, contents: String) {
            self.path = path
            self.contents = contents
        }
    }
}
