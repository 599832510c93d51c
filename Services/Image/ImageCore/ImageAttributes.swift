package import JSON
import Kernel

/// The attributes of every image: one declaration for create, update, filters and the published schema.
package struct ImageAttribute: Sendable {
    /// The type of a value.
    package enum Kind: Sendable {
        case text(max: Int)
        case nullableText(max: Int)
        case word([String])
        case nullableWord([String])
        case count
        case nullableCount
        case flag
        case words
        case time
        case uuid
        case nullableUUID
        case anything
    }

    /// The callers that may set an attribute.
    package enum Writer: Sendable {
        case anyone
        /// Only administrators can set an owner.
        case administrator
        /// Only the service sets it.
        case readOnly
        /// Can only be set while there is no data.
        case whileQueued
    }

    package let name: String
    package let kind: Kind
    package let writer: Writer
    package let summary: String

    private init(_ name: String, _ kind: Kind, _ writer: Writer, _ summary: String) {
        self.name = name
        self.kind = kind
        self.writer = writer
        self.summary = summary
    }

    package static let all: [ImageAttribute] = [
        ImageAttribute("id", .uuid, .readOnly, "An identifier for the image"),
        ImageAttribute("name", .nullableText(max: 255), .anyone, "Descriptive name for the image"),
        ImageAttribute("status", .word(ImageStatus.filterable.sorted()), .readOnly, "Status of the image"),
        ImageAttribute("visibility", .word(ImageVisibility.allCases.map(\.rawValue)), .anyone, "Scope of image accessibility"),
        ImageAttribute("protected", .flag, .anyone, "If true, image will not be deletable."),
        ImageAttribute("os_hidden", .flag, .anyone, "If true, image will not appear in default image list response."),
        ImageAttribute("checksum", .nullableText(max: 32), .readOnly, "md5 hash of image contents."),
        ImageAttribute("os_hash_algo", .nullableText(max: 64), .readOnly, "Algorithm to calculate the os_hash_value"),
        ImageAttribute(
            "os_hash_value", .nullableText(max: 128), .readOnly,
            "Hexdigest of the image contents using the algorithm specified by the os_hash_algo"),
        ImageAttribute("owner", .nullableText(max: 255), .administrator, "Owner of the image"),
        ImageAttribute("size", .nullableCount, .readOnly, "Size of image file in bytes"),
        ImageAttribute("virtual_size", .nullableCount, .readOnly, "Virtual size of image in bytes"),
        ImageAttribute(
            "container_format", .nullableWord(ContainerFormat.allCases.map(\.rawValue)), .whileQueued, "Format of the container"),
        ImageAttribute("disk_format", .nullableWord(DiskFormat.accepted.map(\.rawValue)), .whileQueued, "Format of the disk"),
        ImageAttribute("created_at", .time, .readOnly, "Date and time of image registration"),
        ImageAttribute("updated_at", .time, .readOnly, "Date and time of the last image modification"),
        ImageAttribute("tags", .words, .anyone, "List of strings related to the image"),
        ImageAttribute("min_ram", .count, .anyone, "Amount of ram (in MB) required to boot image."),
        ImageAttribute("min_disk", .count, .anyone, "Amount of disk space (in GB) required to boot image."),
        ImageAttribute("self", .text(max: 255), .readOnly, "An image self url"),
        ImageAttribute("file", .text(max: 255), .readOnly, "An image file url"),
        ImageAttribute("schema", .text(max: 255), .readOnly, "An image schema url"),
        ImageAttribute("stores", .text(max: 255), .readOnly, "Store in which image data resides."),
        ImageAttribute("direct_url", .text(max: 255), .readOnly, "URL to access the image file kept in external store"),
        ImageAttribute("locations", .anything, .readOnly, "A set of URLs to access the image file kept in external store"),
        ImageAttribute("deleted", .flag, .readOnly, "Reserved"),
        ImageAttribute("deleted_at", .time, .readOnly, "Reserved"),
    ]

    /// Optional properties that the schema describes.
    package static let properties: [ImageAttribute] = [
        ImageAttribute("architecture", .text(max: 255), .anyone, "Operating system architecture, for example x86_64."),
        ImageAttribute("description", .text(max: 65_535), .anyone, "A human-readable description of the image."),
        ImageAttribute("instance_uuid", .text(max: 255), .anyone, "The server from which the image was created; for information only."),
        ImageAttribute("kernel_id", .nullableUUID, .anyone, "The image that is the kernel of an AMI image."),
        ImageAttribute("os_distro", .text(max: 255), .anyone, "Common name of the operating system distribution."),
        ImageAttribute("os_version", .text(max: 255), .anyone, "Version of the operating system, as specified by the distributor."),
        ImageAttribute("ramdisk_id", .nullableUUID, .anyone, "The image that is the RAM disk of an AMI image."),
    ]

    package static let byName: [String: ImageAttribute] = Dictionary(uniqueKeysWithValues: all.map { ($0.name, $0) })

    /// Attributes that are not in the published schema, because they are never shown.
    package static let unpublished: Set<String> = ["deleted", "deleted_at", "locations", "direct_url"]

    /// Properties with this prefix are reserved for the service.
    package static let reservedPrefix = "os_glance"
}

/// A validated change of an image.
package struct ImageChange: Sendable {
    package let name: String
    /// Nil removes a property.
    package let value: JSONValue?

    package init(_ name: String, _ value: JSONValue?) {
        self.name = name
        self.value = value
    }
}

extension Image {
    /// Sets a base attribute or a property.
    ///
    /// - Parameter isAdmin: whether the caller may give an image to another project.
    /// - Throws: 403 for attributes that clients cannot set, 400 for an invalid value.
    package mutating func set(_ name: String, _ value: JSONValue, isAdmin: Bool) throws {
        guard let attribute = ImageAttribute.byName[name] else { return try setProperty(name, value) }
        switch attribute.writer {
        case .readOnly: throw ResourceError.forbidden("Attribute '\(name)' is read-only.")
        case .administrator where !isAdmin && value.stringValue != owner:
            throw ResourceError.forbidden("You are not permitted to set '\(name)' of this image.")
        case .whileQueued where status != .queued:
            throw ResourceError.forbidden("Attribute '\(name)' can be only replaced for a queued image.")
        case .anyone, .administrator, .whileQueued: break
        }
        try attribute.check(value)
        assign(name, value)
    }

    private mutating func assign(_ name: String, _ value: JSONValue) {
        switch name {
        case "name": self.name = value.stringValue
        case "visibility": visibility = value.stringValue.flatMap(ImageVisibility.init) ?? visibility
        case "protected": isProtected = value.boolValue ?? isProtected
        case "os_hidden": isHidden = value.boolValue ?? isHidden
        case "owner": owner = value.stringValue ?? owner
        case "container_format": containerFormat = value.stringValue.flatMap(ContainerFormat.init)
        case "disk_format": diskFormat = value.stringValue.flatMap(DiskFormat.init)
        case "min_ram": minRAM = value.intValue ?? minRAM
        case "min_disk": minDisk = value.intValue ?? minDisk
        case "tags": tags = Image.uniqued(value.arrayValue?.compactMap(\.stringValue) ?? [])
        default: break
        }
    }

    private static func uniqued(_ words: [String]) -> [String] {
        var seen: Set<String> = []
        return words.filter { seen.insert($0).inserted }
    }

    private mutating func setProperty(_ name: String, _ value: JSONValue) throws {
        guard !name.hasPrefix(ImageAttribute.reservedPrefix) else {
            throw ResourceError.forbidden("Attribute '\(name.prefix(64))' is reserved.")
        }
        guard (1...ImageLimits.propertyNameLengthMax).contains(name.unicodeScalars.count) else {
            throw ResourceError.badRequest(
                "Property names have 1 to \(ImageLimits.propertyNameLengthMax) characters: '\(name.prefix(64))…'")
        }
        if let known = ImageAttribute.properties.first(where: { $0.name == name }) {
            try known.check(value)
            if value.isNull {
                properties[name] = nil
                return
            }
        }
        guard let text = value.stringValue else {
            throw ResourceError.badRequest(
                "Invalid value for property '\(name.prefix(64))': \(value.description.prefix(64)) is not of type 'string'")
        }
        guard text.unicodeScalars.count <= ImageLimits.propertyValueLengthMax else {
            throw ResourceError.badRequest(
                "The value of property '\(name.prefix(64))' is longer than \(ImageLimits.propertyValueLengthMax) characters")
        }
        properties[name] = value
        guard properties.count <= ImageLimits.propertiesMax else {
            throw ResourceError(
                .tooLarge, "The limit has been exceeded on the number of allowed image properties. Maximum: \(ImageLimits.propertiesMax)")
        }
    }
}

extension ImageAttribute {
    /// - Throws: 400 naming the attribute and the rule.
    func check(_ value: JSONValue) throws {
        switch kind {
        case .nullableText(let max):
            if value.isNull { return }
            try checkText(value, max)
        case .text(let max): try checkText(value, max)
        case .nullableWord(let words):
            if value.isNull { return }
            try checkWord(value, words)
        case .word(let words): try checkWord(value, words)
        case .count, .nullableCount:
            guard let count = value.intValue, (0...Int(Int32.max)).contains(count) else {
                throw problem(value, "is not a whole number from 0 to \(Int32.max)")
            }
        case .flag: guard value.boolValue != nil else { throw problem(value, "is not of type 'boolean'") }
        case .words: try checkTags(value)
        case .nullableUUID:
            guard value.isNull || value.stringValue.flatMap({ UUID128($0) }) != nil else { throw problem(value, "is not a UUID") }
        case .time, .uuid, .anything: break
        }
    }

    private func problem(_ value: JSONValue, _ rule: String) -> ResourceError {
        .badRequest("Invalid value for attribute '\(name)': \(value.description.prefix(120)) \(rule)")
    }

    private func checkText(_ value: JSONValue, _ max: Int) throws {
        guard let text = value.stringValue else { throw problem(value, "is not of type 'string'") }
        guard text.unicodeScalars.count <= max else { throw problem(value, "is longer than \(max) characters") }
    }

    private func checkWord(_ value: JSONValue, _ words: [String]) throws {
        guard let text = value.stringValue, words.contains(text) else { throw problem(value, "is not one of \(words)") }
    }

    private func checkTags(_ value: JSONValue) throws {
        guard let tags = value.arrayValue else { throw problem(value, "is not of type 'array'") }
        guard tags.count <= ImageLimits.tagsMax else {
            throw ResourceError(
                .tooLarge,
                "The limit has been exceeded on the number of allowed image tags. Attempted: \(tags.count), Maximum: \(ImageLimits.tagsMax)"
            )
        }
        for tag in tags {
            guard let text = tag.stringValue, (1...ImageLimits.tagLengthMax).contains(text.unicodeScalars.count) else {
                throw problem(tag, "is not a tag of 1 to \(ImageLimits.tagLengthMax) characters")
            }
        }
    }
}
