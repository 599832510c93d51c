import GuestKeys
import JSON
import Kernel

/// The parts of a flavor, as embedded in a server's row, that affect the choice of a host.
package struct ServerFlavor: Codable, Sendable, Hashable {
    package var vcpus: Int
    package var memoryMiB: Int
    package var rootGiB: Int
    /// Nil for none.
    package var ephemeralGiB: Int?
    /// Nil for none.
    package var swapMiB: Int?
    /// Nil for none.
    package var extraSpecs: TextMap?
    /// The name of the flavor when the server was created.
    package var name: String?
    /// Whether the guest hardware that extra specs and image request was checked when the server got the flavor. Nil, as from release
    /// 0.1.0, means no.
    package var isHardwareChecked: Bool?

    private enum CodingKeys: String, CodingKey {
        case vcpus
        case memoryMiB = "ram"
        case rootGiB = "disk"
        case ephemeralGiB = "ephemeral"
        case swapMiB = "swap"
        case extraSpecs = "extra_specs"
        case name = "original_name"
        case isHardwareChecked = "hardware_checked"
    }

    package init(
        vcpus: Int, memoryMiB: Int, rootGiB: Int, ephemeralGiB: Int? = nil, swapMiB: Int? = nil, extraSpecs: TextMap? = nil,
        name: String? = nil, isHardwareChecked: Bool? = nil
    ) {
        self.isHardwareChecked = isHardwareChecked
        self.vcpus = vcpus
        self.memoryMiB = memoryMiB
        self.rootGiB = rootGiB
        self.ephemeralGiB = ephemeralGiB
        self.swapMiB = swapMiB
        self.extraSpecs = extraSpecs
        self.name = name
    }
}

extension ServerFlavor {
    /// The number of disks on the host of a server.
    ///
    /// - Parameter hasImage: whether the root disk is created from an image and is not a volume.
    package func localDisks(hasImage: Bool) -> Int {
        (hasImage ? 1 : 0) + ((ephemeralGiB ?? 0) > 0 ? 1 : 0) + ((swapMiB ?? 0) > 0 ? 1 : 0)
    }
}

/// The parts of the image on a server's local disk, as embedded in the server's row, that affect the choice of a host.
package struct ServerImage: Codable, Sendable, Hashable {
    /// The size of the root disk if the flavor does not specify it. Nil for none.
    package var diskGiB: Int?

    private enum CodingKeys: String, CodingKey { case diskGiB = "disk_gb" }

    package init(diskGiB: Int? = nil) { self.diskGiB = diskGiB }
}

/// A server's resource requirements, derived from its flavor and image. Compute sends them to the scheduler, the scheduler
/// claims them, and inspections compare allocations with them.
package struct ServerNeeds: Sendable, Hashable {
    /// Amounts above 0, by resource class.
    package private(set) var resources: [String: Int]
    package private(set) var requiredTraits: Set<String>
    package private(set) var forbiddenTraits: Set<String>
    /// The flavor's `aggregate_instance_extra_specs:` with their operators.
    package private(set) var aggregateSpecs: [String: String] = [:]
    /// The canonical name (`canonicalArchitecture`).
    package private(set) var architecture: String?
    package private(set) var hypervisorType: String?

    /// The prefix of custom traits that agents announce, and that only they set.
    package static let agentTraits = GuestHardware.ownTraits

    /// Largest amount of one class.
    package static let amountMax = Int(Int32.max)

    /// - Parameters:
    ///   - image: nil if the server boots from a volume.
    ///   - properties: properties of the image, or of the image from which the boot volume was created.
    /// - Throws: 400 naming the extra spec or property, its value and the rule.
    package init(_ flavor: ServerFlavor, _ image: ServerImage?, properties: TextMap) throws {
        // A flavor without a disk size takes the image's; a server without an image boots from a volume.
        let root = image.map { flavor.rootGiB > 0 ? flavor.rootGiB : $0.diskGiB ?? 0 } ?? 0
        let disk = root + (flavor.ephemeralGiB ?? 0) + ((flavor.swapMiB ?? 0) + 1023) / 1024
        try self.init(
            resources: ["VCPU": flavor.vcpus, "MEMORY_MB": flavor.memoryMiB, "DISK_GB": disk],
            extraSpecs: flavor.extraSpecs?.texts ?? [:], imageProperties: properties.texts, isHardwareChecked: flavor.isHardwareChecked)
    }

    /// Applies extra specs and properties to the given amounts and traits. Idempotent.
    ///
    /// - Parameter isHardwareChecked: see `ServerFlavor`.
    /// - Throws: 400 naming the extra spec or property, its value and the rule.
    package init(
        resources: [String: Int], requiredTraits: [String] = [], forbiddenTraits: [String] = [], extraSpecs: [String: String],
        imageProperties: [String: String], isHardwareChecked: Bool?
    ) throws {
        self.resources = resources
        self.requiredTraits = Set(requiredTraits)
        self.forbiddenTraits = Set(forbiddenTraits)
        let hardware = GuestHardware(
            specs: extraSpecs, properties: imageProperties, isChecked: isHardwareChecked ?? false)
        self.requiredTraits.formUnion(hardware.requiredTraits)
        self.forbiddenTraits.formUnion(hardware.forbiddenTraits)
        if hardware.processorPolicy == .dedicated, let vcpus = self.resources.removeValue(forKey: "VCPU") {
            self.resources["PCPU"] = vcpus
        }
        for (name, value) in extraSpecs {
            if name.hasPrefix("resources:") {
                self.resources[String(name.dropFirst(10))] = try ServerNeeds.amount(value, of: name)
            } else if name.hasPrefix("aggregate_instance_extra_specs:") {
                aggregateSpecs[String(name.dropFirst(31))] = value
            } else {
                try take(trait: name, value)
            }
        }
        for (name, value) in imageProperties { try take(trait: name, value) }
        self.resources = self.resources.filter { $0.value > 0 }
        architecture = (imageProperties["hw_architecture"] ?? imageProperties["architecture"]).map(ServerNeeds.canonicalArchitecture)
        hypervisorType = (imageProperties["img_hv_type"] ?? imageProperties["hypervisor_type"])?.lowercased()
        if hypervisorType == "kvm" { hypervisorType = "qemu" }
    }

    /// Whether every host that was chosen for `other` also fits these needs, as far as aggregates are not concerned.
    package func isMet(where other: ServerNeeds) -> Bool {
        requiredTraits.isSubset(of: other.requiredTraits) && forbiddenTraits.isSubset(of: other.forbiddenTraits)
            && resources == other.resources && [nil, other.architecture].contains(architecture)
            && [nil, other.hypervisorType].contains(hypervisorType)
    }

    /// The same needs without the required traits that a host is known to have.
    package func without(_ traits: Set<String>) -> ServerNeeds {
        var rest = self
        rest.requiredTraits.subtract(traits)
        return rest
    }

    private static func amount(_ text: String, of name: String) throws -> Int {
        guard !text.isEmpty, text.utf8.allSatisfy({ (48...57).contains($0) }), let amount = Int(text), amount <= amountMax else {
            throw wrong(name, text, "must be a whole number from 0 to \(amountMax)")
        }
        return amount
    }

    /// `trait:NAME=required` or `trait:NAME=forbidden`; the scheduler ignores other keys.
    private mutating func take(trait name: String, _ value: String) throws {
        guard name.hasPrefix("trait:") else { return }
        switch value {
        case "required": requiredTraits.insert(String(name.dropFirst(6)))
        case "forbidden": forbiddenTraits.insert(String(name.dropFirst(6)))
        default: throw ServerNeeds.wrong(name, value, "must be required or forbidden")
        }
    }

    private static func wrong(_ name: String, _ value: String, _ rule: String) -> ResourceError {
        .badRequest("Invalid input for \(name). Value: \(JSONValue.string(String(value.prefix(118)))). It \(rule).")
    }

    /// Maps the aliases of an architecture to one name.
    package static func canonicalArchitecture(_ text: String) -> String {
        switch text.lowercased() {
        case "amd64", "x64", "x86-64": "x86_64"
        case "arm64": "aarch64"
        case "i386", "i486", "i586", "x86": "i686"
        case let other: other
        }
    }

    /// Selects `resource_class` and `amount` of `resources`, for statements about many servers at once. It gives the same result
    /// as the initializer for every flavor and image that the initializer accepts.
    ///
    /// - Parameter server: the alias of the row of `servers`. Releases before 0.2.0 wrote an image's properties into `image` only.
    package static func resourcesSQL(_ server: String) -> String {
        let specs = "coalesce(\(server).flavor->'extra_specs', '{}')"
        let properties = "coalesce(\(server).image_properties, nullif(\(server).image->'properties', 'null'), '{}')"
        let policy = """
            CASE WHEN \(server).flavor->>'hardware_checked' IS DISTINCT FROM 'true' THEN 'shared'
                WHEN lower(\(specs)->>'hw:cpu_policy') IN ('shared', 'dedicated') THEN lower(\(specs)->>'hw:cpu_policy')
                ELSE lower(\(properties)->>'hw_cpu_policy') END
            """
        func number(_ name: String) -> String { "coalesce((\(server).flavor->>'\(name)')::bigint, 0)" }
        return """
            SELECT d.resource_class, d.amount FROM (VALUES
                (CASE \(policy) WHEN 'dedicated' THEN 'PCPU' ELSE 'VCPU' END, \(number("vcpus"))), ('MEMORY_MB', \(number("ram"))),
                ('DISK_GB', CASE WHEN \(server).image IS NULL THEN 0 WHEN \(number("disk")) > 0 THEN \(number("disk"))
                    ELSE coalesce((\(server).image->>'disk_gb')::bigint, 0) END + \(number("ephemeral"))
                    + (\(number("swap")) + 1023) / 1024)) d (resource_class, amount)
            WHERE d.amount > 0 AND NOT \(specs) ? ('resources:' || d.resource_class)
            UNION ALL SELECT substr(e.key, 11), e.value::bigint FROM jsonb_each_text(\(specs)) e
            WHERE e.key LIKE 'resources:%' AND e.value ~ '^[0-9]{1,18}$' AND e.value::bigint > 0
            """
    }
}
