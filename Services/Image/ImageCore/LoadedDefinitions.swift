package import GuestKeys
package import JSON

/// The metadata definitions that come with the cloud. They are derived from the table of guest keys, so that the catalog only offers
/// properties and values that servers can have here.
package enum LoadedDefinitions {
    /// A namespace as a client would create it.
    package struct Namespace: Sendable, Hashable {
        package let name: String
        package let title: String
        package let summary: String
        package let associations: [Association]
        package let properties: [(name: String, definition: JSONValue)]

        package static func == (left: Namespace, right: Namespace) -> Bool {
            left.name == right.name && left.body == right.body
        }

        package func hash(into hasher: inout Hasher) { hasher.combine(name) }

        /// The content, from which the digest is computed.
        package var body: JSONValue {
            [
                "title": .string(title), "summary": .string(summary),
                "associations": .array(
                    associations.map { ["name": .string($0.resourceType), "prefix": JSONValue($0.prefix), "target": JSONValue($0.target)] }
                ), "properties": .array(properties.map { [.string($0.name), $0.definition] }),
            ]
        }
    }

    /// A type of resources that can have the properties of a namespace.
    package struct Association: Sendable, Hashable {
        package let resourceType: String
        package let prefix: String?
        /// The map that contains the properties, if a resource has several: `image` for volumes.
        package let target: String?
    }

    /// Keys of one topic. A key that both flavors and images have is listed once, without its prefix.
    private struct Topic {
        let name: String
        let title: String
        let summary: String
        var flavorPrefix: String?
        var imagePrefix: String?
        let keys: [String]
    }

    private static let topics: [Topic] = [
        Topic(
            name: "OS::Compute::CPUPinning", title: "CPU pinning", summary: "How virtual processors share the processors of the host.",
            flavorPrefix: "hw:", imagePrefix: "hw_", keys: ["cpu_policy", "cpu_thread_policy"]),
        Topic(
            name: "OS::Compute::GuestMemoryBacking", title: "Guest memory", summary: "The memory pages that back the memory of a guest.",
            flavorPrefix: "hw:", imagePrefix: "hw_", keys: ["mem_page_size", "locked_memory"]),
        Topic(
            name: "OS::Compute::VirtCPUTopology", title: "CPU topology", summary: "Sockets, cores and threads that a guest sees.",
            flavorPrefix: "hw:", imagePrefix: "hw_",
            keys: ["cpu_sockets", "cpu_cores", "cpu_threads", "cpu_max_sockets", "cpu_max_cores", "cpu_max_threads"]),
        Topic(
            name: "OS::Compute::Watchdog", title: "Watchdog", summary: "What happens to a guest that hangs.", flavorPrefix: "hw:",
            imagePrefix: "hw_", keys: ["watchdog_action"]),
        Topic(
            name: "OS::Compute::TPM", title: "Trusted platform module", summary: "The emulated TPM of a guest.", flavorPrefix: "hw:",
            imagePrefix: "hw_", keys: ["tpm_model", "tpm_version"]),
        Topic(
            name: "OS::Compute::Libvirt", title: "Guest devices", summary: "Devices that flavors and images can ask for.",
            flavorPrefix: "hw:", imagePrefix: "hw_",
            keys: [
                "serial_port_count", "boot_menu", "mem_encryption", "virtio_packed_ring", "vif_multiqueue_enabled", "pmu", "sound_model",
                "usb_model", "redirected_usb_ports", "viommu_model", "maxphysaddr_mode", "maxphysaddr_bits", "numa_nodes",
            ]),
    ]

    /// Free properties that describe the guest's operating system, and have no effect.
    private static let system = ["os_distro", "os_version", "os_admin_user"]

    private static let volumes = Association(resourceType: "OS::Cinder::Volume", prefix: nil, target: "image")

    /// All namespaces, for the table of guest keys of this release.
    package static var all: [Namespace] { namespaces(GuestKey.all) }

    /// - Parameter keys: the table of guest keys.
    package static func namespaces(_ keys: [GuestKey]) -> [Namespace] {
        let offered = keys.filter { !$0.name.contains("*") && $0.isOffered }
        let flavor = Dictionary(uniqueKeysWithValues: offered.filter { $0.place == .flavor }.map { ($0.name, $0) })
        let image = Dictionary(uniqueKeysWithValues: offered.filter { $0.place == .image }.map { ($0.name, $0) })
        var listed: Set<String> = []
        var result = topics.map { topic -> Namespace in
            let properties = topic.keys.compactMap { name -> (name: String, definition: JSONValue)? in
                guard let flavorKey = flavor["hw:\(name)"], let imageKey = image["hw_\(name)"],
                    flavorKey.definition(name) == imageKey.definition(name)
                else { return nil }
                listed.formUnion([flavorKey.name, imageKey.name])
                return (name, imageKey.definition(name))
            }
            return Namespace(
                name: topic.name, title: topic.title, summary: topic.summary,
                associations: [
                    Association(resourceType: "OS::Glance::Image", prefix: topic.imagePrefix, target: nil),
                    Association(resourceType: "OS::Cinder::Volume", prefix: topic.imagePrefix, target: "image"),
                    Association(resourceType: "OS::Nova::Flavor", prefix: topic.flavorPrefix, target: nil),
                ], properties: properties)
        }
        func others(_ place: GuestKey.Place) -> [(name: String, definition: JSONValue)] {
            offered.filter { $0.place == place && !listed.contains($0.name) }.map { ($0.name, $0.definition($0.name)) }
        }
        result.append(
            Namespace(
                name: "OS::Compute::LibvirtImage", title: "Hardware by image", summary: "Hardware that an image asks for.",
                associations: [Association(resourceType: "OS::Glance::Image", prefix: nil, target: nil), volumes],
                properties: others(.image)))
        result.append(
            Namespace(
                name: "OS::Compute::FlavorHardware", title: "Hardware by flavor", summary: "Hardware and limits that a flavor asks for.",
                associations: [Association(resourceType: "OS::Nova::Flavor", prefix: nil, target: nil)], properties: others(.flavor)))
        return (result + descriptive).filter { !$0.properties.isEmpty }
    }

    /// Namespaces of properties that only describe an image.
    private static var descriptive: [Namespace] {
        let common = ImageAttribute.properties.filter { !system.contains($0.name) && !["kernel_id", "ramdisk_id"].contains($0.name) }
        return [
            Namespace(
                name: "OS::OperatingSystem", title: "Operating system", summary: "The operating system in an image. Has no effect.",
                associations: [Association(resourceType: "OS::Glance::Image", prefix: nil, target: nil), volumes],
                properties: system.map { ($0, ["title": .string(MetadataTitle.of($0)), "type": "string"]) }),
            Namespace(
                name: "OS::Glance::CommonImageProperties", title: "Common image properties",
                summary: "Properties that Image's schema describes.",
                associations: [Association(resourceType: "OS::Glance::Image", prefix: nil, target: nil)],
                properties: common.map {
                    ($0.name, ["title": .string(MetadataTitle.of($0.name)), "description": .string($0.summary), "type": "string"])
                }),
        ]
    }
}

extension GuestKey {
    /// Whether users can choose a value. Keys that are refused, have no effect, or only allow their default are not offered.
    fileprivate var isOffered: Bool {
        switch effect {
        case .implemented: true
        case .limited(let served, _): served.filter { !$0.isEmpty }.count > 1
        case .refused, .metadata: false
        }
    }

    /// The definition of the property `name`: its type and the values that servers can have.
    fileprivate func definition(_ name: String) -> JSONValue {
        var definition: JSONObject = ["title": .string(MetadataTitle.of(name))]
        switch values {
        case .text: definition["type"] = "string"
        case .flag: definition["type"] = "boolean"
        case .words(let words):
            definition["type"] = "string"
            definition["enum"] = JSONValue(words)
        case .number(let range):
            definition["type"] = "integer"
            if range.lowerBound > Int.min { definition["minimum"] = JSONValue(range.lowerBound) }
            if range.upperBound < Int.max { definition["maximum"] = JSONValue(range.upperBound) }
        }
        if case .limited(let served, let lacking) = effect {
            let words = served.filter { !$0.isEmpty }
            if words.contains(where: { $0.hasSuffix("*") }) {
                definition["pattern"] = .string("^(" + words.map { $0.replacing("*", with: ".*") }.joined(separator: "|") + ")$")
            } else if definition["type"] == "string" {
                definition["enum"] = JSONValue(words)
            }
            definition["description"] = .string("Not available in this cloud: \(lacking).")
        }
        return .object(definition)
    }
}

/// Titles of properties, from their names.
enum MetadataTitle {
    private static let abbreviations: [String: String] = [
        "cpu": "CPU", "numa": "NUMA", "tpm": "TPM", "vif": "VIF", "rng": "RNG", "usb": "USB", "os": "OS", "pmu": "PMU", "vm": "VM",
        "hv": "hypervisor", "uuid": "UUID", "id": "ID", "cdrom": "CD-ROM", "scsi": "SCSI", "qemu": "QEMU", "viommu": "virtual IOMMU",
        "iops": "IOPS", "maxphysaddr": "physical address", "mem": "memory", "distro": "distribution",
    ]

    /// `hw:cpu_policy` is `CPU policy`.
    static func of(_ name: String) -> String {
        let bare = ["hw:", "hw_", "img_", "hw_rng:", "quota:"].first { name.hasPrefix($0) }.map { name.dropFirst($0.count) } ?? name[...]
        let words = bare.split { $0 == "_" || $0 == ":" }.map { abbreviations[String($0)] ?? String($0) }
        let text = words.joined(separator: " ")
        return text.prefix(1).uppercased() + text.dropFirst()
    }
}
