package import JSON
package import Kernel

/// The rules for what an agent in a node's ramdisk says of itself.
package struct AgentRules: Sendable {
    /// Where agents may be; empty for everywhere but this machine and link-local addresses.
    package let networks: [IPNetwork]
    /// Whether the agents' command API must use TLS.
    package let requiresTLS: Bool
    /// Seconds between two calls of an agent. Agents call more often by themselves.
    package let heartbeatTimeout: Int
    /// Seconds from the start of a machine to the first call of its agent.
    package let callbackTimeout: Int

    /// - Throws: 400 naming the setting.
    package init(networks: [String] = [], requiresTLS: Bool = true, heartbeatTimeout: Duration, callbackTimeout: Duration) throws {
        self.networks = try networks.map { text in
            guard let network = IPNetwork(text) else {
                throw ResourceError.badRequest("bare_metal.agent_networks has '\(text.prefix(64))', which is not a network (CIDR).")
            }
            return network
        }
        self.requiresTLS = requiresTLS
        self.heartbeatTimeout = Int(heartbeatTimeout.components.seconds)
        self.callbackTimeout = Int(callbackTimeout.components.seconds)
        guard (10...3600).contains(self.heartbeatTimeout) else {
            throw ResourceError.badRequest("bare_metal.agent_heartbeat_timeout is \(heartbeatTimeout); it must be from 10s to 1h.")
        }
        guard (10...86_400).contains(self.callbackTimeout) else {
            throw ResourceError.badRequest("bare_metal.deploy_callback_timeout is \(callbackTimeout); it must be from 10s to 1d.")
        }
    }

    private static let usuallyExcluded = [
        "127.0.0.0/8", "169.254.0.0/16", "0.0.0.0/8", "224.0.0.0/3", "::/127", "::ffff:0:0/96", "fe80::/10", "ff00::/8",
    ]
    .compactMap { IPNetwork($0) }

    /// The base URL of an agent's command API, without a slash at the end.
    ///
    /// The service sends commands to it, so it must not lead to a machine that is none of the nodes: it has an address, not a name, and no
    /// path.
    ///
    /// - Throws: 400 naming the rule.
    package func callbackURL(_ text: String) throws -> String {
        func invalid(_ rule: String) -> ResourceError {
            .badRequest("Invalid input for callback_url. Value: '\(text.prefix(64))'. \(rule)")
        }
        let url = text.hasSuffix("/") ? String(text.dropLast()) : text
        let isSecure = url.hasPrefix("https://")
        guard isSecure || url.hasPrefix("http://") else { throw invalid("It must be an https URL.") }
        guard isSecure || !requiresTLS else { throw invalid("TLS is required by the operator's configuration.") }
        let place = url.dropFirst(isSecure ? 8 : 7)
        let (host, port) = AgentRules.split(place)
        guard let address = IPAddress(String(host)), port.map(AgentRules.isPort) ?? true,
            (address.version == .v6) == place.hasPrefix("[")
        else {
            throw invalid("It must have an IP address and perhaps a port, and no path: https://ADDRESS:PORT.")
        }
        guard networks.isEmpty ? !AgentRules.usuallyExcluded.contains(where: { $0.contains(address) }) : isInNetworks(address) else {
            throw invalid("The address is in none of the networks of agents (bare_metal.agent_networks).")
        }
        return url
    }

    private func isInNetworks(_ address: IPAddress) -> Bool { networks.contains { $0.contains(address) } }

    private static func isPort(_ text: Substring) -> Bool {
        (1...5).contains(text.utf8.count) && text.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) }
            && (1...65535).contains(Int(text) ?? 0)
    }

    /// Host and port, of which the host is in brackets for IPv6.
    private static func split(_ place: Substring) -> (host: Substring, port: Substring?) {
        if place.hasPrefix("["), let end = place.firstIndex(of: "]") {
            let (host, rest) = (place[place.index(after: place.startIndex)..<end], place[place.index(after: end)...])
            return (host, rest.isEmpty ? nil : rest.hasPrefix(":") ? rest.dropFirst() : "-")
        }
        let parts = place.split(separator: ":", omittingEmptySubsequences: false)
        return parts.count <= 2 ? (parts.first ?? "", parts.count == 2 ? parts[1] : nil) : ("", nil)
    }

    /// - Throws: 400 for anything that is not a version, such as `13.0.0` or `13.0.1.dev7`.
    package static func requireVersion(_ text: String) throws {
        let isVersion =
            (1...64).contains(text.utf8.count)
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "."), UInt8(ascii: "+"),
                    UInt8(ascii: "-"):
                    true
                default: false
                }
            }
        guard isVersion, text.first?.isNumber == true else {
            throw ResourceError.badRequest(
                "Invalid input for agent_version. Value: '\(text.prefix(64))'. It must be a version such as 13.0.0.")
        }
    }

    /// - Throws: 400 for anything but one certificate in PEM.
    package static func requireCertificate(_ text: String) throws {
        let (begin, end) = ("-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----")
        let lines = text.split(whereSeparator: \.isNewline).map(String.init)
        guard text.utf8.count <= BareMetalLimits.certificateMax, lines.first == begin, lines.last == end,
            lines.filter({ $0.hasPrefix("-----") }).count == 2, Base64.decode(lines.dropFirst().dropLast().joined()) != nil
        else {
            throw ResourceError.badRequest("Invalid input for agent_verify_ca. It must be one certificate in PEM.")
        }
    }
}

/// The image that a deployment writes, as `instance_info` describes it.
package struct DeployImage: Sendable, Hashable {
    package let url: String
    /// Nil to let the agent find out.
    package let format: String?
    package let hashAlgorithm: String
    package let hashValue: String

    private static let lengths = ["sha256": 64, "sha512": 128]

    /// - Throws: 400 naming the member.
    package init(_ info: JSONObject) throws {
        func text(_ name: String) throws -> String? {
            guard let value = info[name], value != .null else { return nil }
            guard let text = value.stringValue, !text.isEmpty else { throw DeployImage.invalid(name, value, "It must be a text.") }
            return text
        }
        guard let url = try text("image_source") else {
            throw ResourceError.badRequest("Node has no instance_info/image_source: the URL of the image that is to be deployed.")
        }
        do { try NodeRules.requireImageURL(url, "instance_info/image_source") } catch let error as ResourceError {
            throw ResourceError.badRequest("\(error.message) Ids of images of the Image service are not supported.")
        }
        self.url = url
        if let type = try text("image_type"), type != "whole-disk" {
            throw DeployImage.invalid("image_type", .string(type), "Only whole-disk images can be deployed.")
        }
        for name in ["kernel", "ramdisk"] where info[name] != nil && info[name] != .null {
            throw DeployImage.invalid(name, info[name] ?? .null, "Partition images cannot be deployed, only whole-disk images.")
        }
        format = try text("image_disk_format")
        if let format, !["raw", "qcow2"].contains(format) {
            throw DeployImage.invalid("image_disk_format", .string(format), "It must be raw or qcow2.")
        }
        (hashAlgorithm, hashValue) = try DeployImage.hash(
            try text("image_os_hash_algo"), try text("image_os_hash_value"), try text("image_checksum"))
    }

    private static func invalid(_ name: String, _ value: JSONValue, _ rule: String) -> ResourceError {
        .badRequest("Invalid input for instance_info/\(name). Value: \(value.description.prefix(64)). \(rule)")
    }

    /// The checksum that the agent verifies: `image_os_hash_algo` and `image_os_hash_value`, or an `image_checksum` of the same kinds.
    private static func hash(_ algorithm: String?, _ value: String?, _ checksum: String?) throws -> (String, String) {
        guard (algorithm == nil) == (value == nil) else {
            throw ResourceError.badRequest("instance_info/image_os_hash_algo and instance_info/image_os_hash_value need each other.")
        }
        let found: (String, String)? =
            if let algorithm, let value { (algorithm, value) } else {
                checksum.flatMap { text in lengths.first { $0.value == text.utf8.count }.map { ($0.key, text) } }
            }
        guard let found, let length = lengths[found.0], found.1.utf8.count == length, Hexadecimal.decode(found.1) != nil else {
            throw ResourceError.badRequest(
                """
                An image needs a checksum: instance_info/image_os_hash_algo sha256 or sha512 with instance_info/image_os_hash_value in \
                hexadecimal, or such a value in instance_info/image_checksum. MD5 is refused.
                """)
        }
        return (found.0, found.1.lowercased())
    }

    /// `image_info` of the agent's commands.
    package func document(node: UUID128) -> JSONObject {
        [
            "id": .string(String(url.split(separator: "/").last ?? "image")), "urls": [.string(url)], "disk_format": JSONValue(format),
            "container_format": "bare", "stream_raw_images": .bool(format == "raw"), "os_hash_algo": .string(hashAlgorithm),
            "os_hash_value": .string(hashValue), "image_type": "whole-disk", "node_uuid": .string(node.description),
        ]
    }
}

/// Root device hints: how a deployment finds the disk.
package enum RootDevice {
    private static let names: Set<String> = [
        "model", "vendor", "serial", "size", "wwn", "wwn_with_extension", "wwn_vendor_extension", "rotational", "hctl", "name", "by_path",
    ]

    /// - Parameter value: `root_device` of the node's `properties` or `instance_info`.
    /// - Throws: 400 naming the hint.
    package static func require(_ value: JSONValue?) throws {
        guard let value, value != .null else { return }
        guard let hints = value.objectValue else {
            throw ResourceError.badRequest("Invalid input for root_device. It must be an object with hints, not \(value.kindName).")
        }
        for hint in hints.members {
            guard names.contains(hint.name) else {
                let known = names.sorted().joined(separator: ", ")
                throw ResourceError.badRequest(
                    "Invalid input for root_device. There is no hint '\(hint.name.prefix(64))', only \(known)."
                )
            }
            let isRight =
                switch hint.value {
                case .string(let text): !text.isEmpty && text.utf8.count <= 255
                case .integer(let number): hint.name == "size" && number > 0
                case .bool: hint.name == "rotational"
                default: false
                }
            guard isRight else {
                let more = ["size": " or a number of GiB", "rotational": " or a boolean"][hint.name] ?? ""
                throw ResourceError.badRequest(
                    """
                    Invalid input for root_device/\(hint.name). Value: \(hint.value.description.prefix(64)). It must be a text\(more).
                    """)
            }
        }
    }
}
