package import Contracts
import GuestKeys
package import JSON
import Kernel

/// A fixed address of a port, with its subnet.
package struct PortAddress: Sendable, Hashable {
    package var address: String
    package var subnetID: String?
    package var cidr: String
    package var gateway: String?
    package var nameServers: [String]
    package var usesDHCP: Bool

    package init(
        address: String, subnetID: String?, cidr: String, gateway: String?, nameServers: [String] = [],
        usesDHCP: Bool = true
    ) {
        self.address = address
        self.subnetID = subnetID
        self.cidr = cidr
        self.gateway = gateway
        self.nameServers = nameServers
        self.usesDHCP = usesDHCP
    }
}

/// A port as the agent must plug it.
package struct PortDescription: Sendable, Hashable {
    package var id: String
    package var networkID: String
    package var mac: String
    /// Bytes.
    package var mtu: Int
    package var addresses: [PortAddress]
    package var tag: String?
    /// The network's own port for metadata.
    package var metadataPort: ServerSpec.MetadataPort?
    /// Whether port security is on.
    package var isSecured: Bool
    /// Floating IPs of the port.
    package var floatingIPs: [String] = []
    /// Names of its security groups.
    package var securityGroups: [String] = []

    package init(
        id: String, networkID: String, mac: String, mtu: Int, addresses: [PortAddress], tag: String? = nil,
        metadataPort: ServerSpec.MetadataPort? = nil, isSecured: Bool = true
    ) {
        self.id = id
        self.networkID = networkID
        self.mac = mac
        self.mtu = mtu
        self.addresses = addresses
        self.tag = tag
        self.metadataPort = metadataPort
        self.isSecured = isSecured
    }
}

/// A volume as the agent must attach it.
package struct VolumeDescription: Sendable, Hashable {
    package var volumeID: String
    package var attachmentID: String
    package var device: String
    package var bootIndex: Int?
    package var connection: Enclosed<ServerSpec.Connection>
    package var tag: String?
    package var sizeGiB: Int?

    package init(
        volumeID: String, attachmentID: String, device: String, bootIndex: Int?, connection: Enclosed<ServerSpec.Connection>,
        tag: String? = nil, sizeGiB: Int? = nil
    ) {
        self.sizeGiB = sizeGiB
        self.volumeID = volumeID
        self.attachmentID = attachmentID
        self.device = device
        self.bootIndex = bootIndex
        self.connection = connection
        self.tag = tag
    }
}

/// The complete desired state of a server: the source of the message to the agent.
package struct ServerDescription: Sendable {
    package var id: String
    package var name: String
    package var hostname: String
    package var projectID: String
    package var userID: String
    package var generation: Int
    package var epoch: Int
    package var power: DesiredPower
    package var operation: ServerSpec.Operation?
    /// The flavor as it is embedded in the server's row.
    package var flavor: ServerFlavor
    package var image: ServerSpec.Image?
    /// Includes properties of the image from which a boot volume was created.
    package var imageProperties: TextMap
    package var rescue: ServerSpec.Rescue?
    package var keepsDisks: Bool
    /// Whether a server that is to be absent leaves its disks on the host. If not, copies from before a resize are removed too.
    package var leavesDisks = false
    /// Whether the local root disk is a full copy without a backing image.
    package var rootIsCopy = false
    /// Images with the content of the server's disks on its previous host.
    package var diskSources: [ServerSpec.DiskSource] = []
    package var metadata: JSONObject
    package var userData: String?
    /// Files to inject.
    package var files: [ServerSpec.File]
    package var configDrive: Bool
    /// The password that the guest posted to the metadata service.
    package var guestPassword: String?
    package var keyName: String?
    package var keyData: String?
    /// `ssh` or `x509`.
    package var keyType = "ssh"
    /// The tag of the local root disk.
    package var rootTag: String?
    package var availabilityZone: String?
    package var launchIndex: Int
    package var ports: [PortDescription]
    package var volumes: [VolumeDescription]
    /// Long-running work beside the desired state.
    package var jobs: [ServerJob]
    /// The processor models of the hosts that the guest must be able to move between; nil if its host is not in such an aggregate.
    package var processorDefinitions: [String]?

    package init(
        id: String, name: String, hostname: String, projectID: String, userID: String, generation: Int, epoch: Int,
        power: DesiredPower, operation: ServerSpec.Operation?, flavor: ServerFlavor, image: ServerSpec.Image?,
        imageProperties: TextMap = [:], rescue: ServerSpec.Rescue? = nil, keepsDisks: Bool = false,
        metadata: JSONObject, userData: String?, files: [ServerSpec.File] = [], configDrive: Bool,
        keyName: String?, keyData: String?, availabilityZone: String?,
        launchIndex: Int, ports: [PortDescription], volumes: [VolumeDescription], jobs: [ServerJob] = []
    ) {
        self.jobs = jobs
        self.id = id
        self.name = name
        self.hostname = hostname
        self.projectID = projectID
        self.userID = userID
        self.generation = generation
        self.epoch = epoch
        self.power = power
        self.operation = operation
        self.flavor = flavor
        self.image = image
        self.imageProperties = imageProperties
        self.rescue = rescue
        self.keepsDisks = keepsDisks
        self.metadata = metadata
        self.userData = userData
        self.files = files
        self.configDrive = configDrive
        self.keyName = keyName
        self.keyData = keyData
        self.availabilityZone = availabilityZone
        self.launchIndex = launchIndex
        self.ports = ports
        self.volumes = volumes
    }
}

extension ServerDescription {
    /// The desired state for the server's host.
    package var spec: ServerSpec {
        var extraSpecs = flavor.extraSpecs ?? [:]
        extraSpecs["flavor_name"] = flavor.name ?? ""
        let staysOnDisk = power == .absent ? leavesDisks : keepsDisks
        return ServerSpec(
            id: id, name: name, projectID: projectID, userID: userID, generation: generation, epoch: epoch, power: power,
            operation: operation, vcpus: flavor.vcpus, memoryMiB: flavor.memoryMiB, rootGiB: flavor.rootGiB,
            ephemeralGiB: flavor.ephemeralGiB ?? 0, swapMiB: flavor.swapMiB ?? 0, extraSpecs: extraSpecs, image: image,
            imageProperties: imageProperties, rescue: rescue, keepsDisks: staysOnDisk ? true : nil,
            volumes: presentVolumes.map(\.spec), ports: ports.map(\.spec), metadata: metaData,
            networkData: networkData, userData: userData,
            files: files, configDrive: configDrive, hostname: hostname, guestPassword: guestPassword,
            // A server that must be absent has no jobs.
            jobs: jobs.isEmpty || power == .absent || power == .expected ? nil : jobs, floatingIPs: ports.flatMap(\.floatingIPs),
            securityGroups: ports.flatMap(\.securityGroups).uniqued, isHardwareChecked: flavor.isHardwareChecked,
            diskSources: diskSources.isEmpty ? nil : diskSources, processorDefinitions: processorDefinitions)
    }

    /// While a rescue disk replaces the server's first disk, the server has no volumes.
    private var presentVolumes: [VolumeDescription] { rescue?.isStable == false ? [] : volumes }

    /// `meta_data.json` as guests find it.
    package var metaData: JSONObject {
        var document: JSONObject = [
            "uuid": .string(id), "name": .string(name), "hostname": .string(hostname),
            "launch_index": JSONValue(launchIndex), "availability_zone": JSONValue(availabilityZone),
            "project_id": .string(projectID), "devices": .array(taggedDevices), "dedicated_cpus": [],
        ]
        if !metadata.isEmpty { document["meta"] = .object(metadata) }
        if let keyName, let keyData {
            document["public_keys"] = [keyName: .string(keyData)]
            document["keys"] = [["name": .string(keyName), "type": .string(keyType), "data": .string(keyData)]]
        }
        return document
    }

    private var taggedDevices: [JSONValue] {
        let nics = ports.compactMap { port in
            port.tag.map { tag -> JSONValue in
                ["type": "nic", "bus": "pci", "mac": .string(port.mac), "tags": [.string(tag)]]
            }
        }
        let hardware = GuestHardware(
            specs: [:], properties: imageProperties.texts, isChecked: flavor.isHardwareChecked ?? false)
        let bus = hardware.diskBus?.rawValue ?? "virtio"
        let disks = presentVolumes.compactMap { volume in
            volume.tag.map { tag -> JSONValue in
                ["type": "disk", "bus": .string(bus), "serial": .string(volume.volumeID), "tags": [.string(tag)]]
            }
        }
        let root: [JSONValue] = rootTag.map { [["type": "disk", "bus": "virtio", "serial": "root", "tags": [.string($0)]]] } ?? []
        return nics + root + disks
    }

    /// `network_data.json`: links, networks and name servers.
    package var networkData: JSONObject {
        var links: [JSONValue] = []
        var networks: [JSONValue] = []
        var services: [JSONValue] = []
        var seen: Set<String> = []
        for port in ports {
            let link = "tap" + port.id.prefix(11)
            links.append([
                "id": .string(link), "vif_id": .string(port.id), "type": "ovs", "mtu": JSONValue(port.mtu),
                "ethernet_mac_address": .string(port.mac),
            ])
            for address in port.addresses {
                networks.append(address.document(link: link, networkID: port.networkID, number: networks.count))
                for server in address.nameServers where seen.insert(server).inserted {
                    services.append(["type": "dns", "address": .string(server)])
                }
            }
        }
        return ["links": .array(links), "networks": .array(networks), "services": .array(services)]
    }
}

extension PortAddress {
    fileprivate func document(link: String, networkID: String, number: Int) -> JSONValue {
        let isV4 = !address.contains(":")
        let subnet = IPNetwork(cidr)
        var document: JSONObject = [
            "id": .string("network\(number)"), "link": .string(link), "network_id": .string(networkID),
        ]
        if isV4, usesDHCP {
            document["type"] = "ipv4_dhcp"
            return .object(document)
        }
        document["type"] = .string(isV4 ? "ipv4" : "ipv6")
        document["ip_address"] = .string(address)
        document["netmask"] = .string(
            subnet.map { isV4 ? $0.netmask.description : IPNetwork.maskV6(prefixLength: $0.prefixLength) } ?? "")
        var routes: [JSONValue] = []
        if let gateway {
            let any = isV4 ? "0.0.0.0" : "::"
            routes.append(["network": .string(any), "netmask": .string(any), "gateway": .string(gateway)])
        }
        document["routes"] = .array(routes)
        return .object(document)
    }

    fileprivate var spec: ServerSpec.PortAddress {
        ServerSpec.PortAddress(address: address, subnetID: subnetID, cidr: cidr, gateway: gateway)
    }
}

extension IPNetwork {
    static func maskV6(prefixLength: Int) -> String {
        let ones = prefixLength == 0 ? UInt128(0) : UInt128.max << UInt128(128 - prefixLength)
        return IPAddress(version: .v6, value: ones).description
    }
}

extension PortDescription {
    fileprivate var spec: ServerSpec.Port {
        ServerSpec.Port(
            id: id, networkID: networkID, mac: mac, mtu: mtu, fixedIPs: addresses.map(\.spec), metadataPort: metadataPort, tag: tag,
            isSecured: isSecured)
    }
}

extension VolumeDescription {
    fileprivate var spec: ServerSpec.Volume {
        ServerSpec.Volume(
            id: volumeID, attachmentID: attachmentID, device: device.hasPrefix("/dev/") ? String(device.dropFirst(5)) : device,
            bootIndex: bootIndex, connection: connection, sizeGiB: sizeGiB)
    }
}
