package import JSON
import Kernel

/// The rules for the values that clients send for nodes and their ports.
package enum NodeRules {
    /// Words of paths below `/v1/nodes`, which a node with this name would hide.
    private static let reserved: Set<String> = ["detail", "validate", "maintenance", "management", "states", "vendor_passthru"]

    /// Whether the name is allowed: only unreserved characters of RFC 3986, and not in the form of an id.
    package static func isName(_ name: String) -> Bool {
        let allowed =
            !name.isEmpty && name.utf8.count <= 255
            && name.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "-"), UInt8(ascii: "."), UInt8(ascii: "_"), UInt8(ascii: "~"):
                    true
                default: false
                }
            }
        return allowed && UUID128(name) == nil && !reserved.contains(name)
    }

    /// - Throws: 400 for a name that cannot be part of a path.
    package static func requireName(_ name: String, of resource: String) throws {
        guard isName(name) else {
            throw ResourceError.badRequest(
                """
                Invalid input for name of a \(resource). Value: '\(name.prefix(64))'. It must have 1 to 255 letters, digits and the \
                characters - . _ ~, and must not be a UUID or a word of the API's paths.
                """)
        }
    }

    /// Checks the name in a body. Some clients send an empty name instead of none.
    ///
    /// - Throws: 400 for a name that cannot be part of a path.
    package static func normalizeName(_ body: inout JSONObject, of resource: String) throws {
        guard let name = body["name"]?.stringValue else { return }
        if name.isEmpty { body["name"] = .null } else { try requireName(name, of: resource) }
    }

    /// - Throws: 400 for an invalid trait name.
    package static func requireTrait(_ trait: String) throws {
        let isWord =
            !trait.isEmpty && trait.utf8.count <= 255
            && trait.utf8.allSatisfy {
                (UInt8(ascii: "A")...UInt8(ascii: "Z")).contains($0) || (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0)
                    || $0 == UInt8(ascii: "_")
            }
        guard isWord, trait.hasPrefix("CUSTOM_") ? trait.utf8.count > 7 : trait.contains("_") else {
            throw ResourceError.badRequest(
                """
                Invalid input for trait. Value: '\(trait.prefix(64))'. It must be a standard trait, or CUSTOM_ and upper-case letters, \
                digits and underscores, of at most 255 characters.
                """)
        }
    }

    /// Words in the names of members that hold secrets.
    package static let secretWords = ["password", "secret", "token", "community", "_key", "passphrase"]

    /// Whether a member of `driver_info` holds a secret: it is never shown.
    package static func isSecret(_ name: String) -> Bool {
        let name = name.lowercased()
        return secretWords.contains { name.contains($0) }
    }

    /// The value that is shown instead of a secret.
    package static let mask: JSONValue = "******"

    /// The value of a member that must be an object; null counts as an empty one.
    ///
    /// - Throws: 400 for anything else, and for more than 64 KiB.
    package static func document(_ value: JSONValue, _ name: String) throws -> JSONObject {
        if value == .null { return [:] }
        guard let object = value.objectValue else {
            throw ResourceError.badRequest(
                "Invalid input for \(name). Value: \(value.description.prefix(64)). It must be an object, not \(value.kindName).")
        }
        guard value.description.utf8.count <= BareMetalLimits.documentMax else {
            throw ResourceError.badRequest("Invalid input for \(name). It is larger than \(BareMetalLimits.documentMax) bytes.")
        }
        return object
    }

    /// Checks the config drive in a request and returns its base64 text without newlines; nil if the request has none.
    ///
    /// - Throws: 400 for anything but the base64 text of a file in gzip's format.
    package static func configDrive(_ value: JSONValue?) throws -> String? {
        let rule = "It must be the base64 text of a gzipped disk image, of up to \(BareMetalLimits.configDriveMax) characters."
        switch value {
        case nil, .null?, .string("")?: return nil
        case .string(let text)?:
            // The service fetches nothing by URL.
            if text.hasPrefix("http://") || text.hasPrefix("https://") {
                throw ResourceError.badRequest("Invalid input for configdrive. It cannot be a URL. \(rule)")
            }
            // Tools write base64 text in lines.
            let plain = text.filter { !$0.isNewline }
            guard plain.utf8.count <= BareMetalLimits.configDriveMax, let bytes = Base64.decode(plain), bytes.starts(with: [0x1f, 0x8b])
            else { throw ResourceError.badRequest("Invalid input for configdrive. \(rule)") }
            return plain
        case .object?:
            throw ResourceError.badRequest("Invalid input for configdrive. This cloud does not build config drives from objects. \(rule)")
        case let value?: throw ResourceError.badRequest("Invalid input for configdrive. It is \(value.kindName). \(rule)")
        }
    }

    /// Requires the URL of an image that a machine or its controller fetches.
    ///
    /// - Throws: 400 for anything but http and https, and for URLs with credentials, which would be shown.
    package static func requireImageURL(_ url: String, _ member: String) throws {
        let rest = url.hasPrefix("https://") ? url.dropFirst(8) : url.hasPrefix("http://") ? url.dropFirst(7) : ""
        let host = rest.prefix { $0 != "/" && $0 != "?" && $0 != "#" }
        let isPlain = url.utf8.count <= 1024 && url.utf8.allSatisfy { (0x21...0x7e).contains($0) && !"\"'\\<>`".utf8.contains($0) }
        guard isPlain, !host.isEmpty, !host.contains("@") else {
            throw ResourceError.badRequest(
                """
                Invalid input for \(member). Value: '\(url.prefix(64))'. It must be an http or https URL without a user, of up to 1024 \
                characters.
                """)
        }
    }

    /// Requires that a new `instance_info` does not change the node's config drive.
    ///
    /// - Throws: 400 otherwise.
    package static func requireKnownConfigDrive(_ new: JSONObject, old: JSONObject) throws {
        guard let drive = new["configdrive"], drive != old["configdrive"] else { return }
        throw ResourceError.badRequest(
            "Invalid input for instance_info/configdrive. Send the config drive in the request to deploy (target active or rebuild).")
    }

    /// The normal form of a port's connection to a switch.
    ///
    /// - Throws: 400 naming the member.
    package static func localLink(_ value: JSONValue) throws -> JSONObject {
        var link = try document(value, "local_link_connection")
        guard !link.isEmpty else { return link }
        func invalid(_ member: String, _ value: JSONValue, _ rule: String) -> ResourceError {
            .badRequest("Invalid input for local_link_connection/\(member.prefix(64)). Value: \(value.description.prefix(64)). \(rule)")
        }
        let known: Set<String> = ["port_id", "switch_id", "hostname", "switch_info", "network_type"]
        for (name, value) in link.members {
            guard known.contains(name) else {
                throw invalid(name, value, "The members are \(known.sorted().joined(separator: ", ")).")
            }
            guard let text = value.stringValue, text.utf8.count <= 255 else {
                throw invalid(name, value, "It must be a text of up to 255 bytes.")
            }
        }
        let network = link["network_type"]?.stringValue
        guard network == nil || network == "managed" || network == "unmanaged" else {
            throw invalid("network_type", JSONValue(network), "It must be managed or unmanaged.")
        }
        guard network == "unmanaged" || link["port_id"] != nil && (link["switch_id"] != nil || link["hostname"] != nil) else {
            throw ResourceError.badRequest("Invalid input for local_link_connection. It must have port_id and switch_id (or hostname).")
        }
        if let text = link["switch_id"]?.stringValue {
            guard let address = MACAddress(text)?.description ?? datapathID(text) else {
                throw invalid("switch_id", .string(text), "It must be a MAC address or an OpenFlow datapath id.")
            }
            link["switch_id"] = .string(address)
        }
        return link
    }

    /// A datapath id (16 hexadecimal digits, also `0x…` or in pairs with colons) in lower case.
    private static func datapathID(_ text: String) -> String? {
        let digits = (text.hasPrefix("0x") ? String(text.dropFirst(2)) : text.replacing(":", with: "")).lowercased()
        guard digits.utf8.count == 16, UInt64(digits, radix: 16) != nil else { return nil }
        return text.lowercased()
    }

    /// A step of cleaning, deploying or servicing that a request names.
    package struct Step: Codable, Sendable, Hashable {
        package let interface: String
        package let step: String
        package var args: JSONObject?
        package var priority: Int?

        package init(interface: String, step: String, args: JSONObject? = nil, priority: Int? = nil) {
            self.interface = interface
            self.step = step
            self.args = args
            self.priority = priority
        }
    }
}
