package import JSON
package import Kernel

/// A namespace of metadata definitions as stored, without its parts.
package struct MetadataNamespace: Sendable, Hashable {
    package enum Visibility: String, Sendable, CaseIterable {
        /// Everyone can read it.
        case `public`
        /// The owner can read it.
        case `private`
    }

    package let id: UUID128
    /// The unique name: `OS::Compute::CPUPinning`.
    package let name: String
    package let visibility: Visibility
    /// A protected namespace and its parts cannot be deleted.
    package let isProtected: Bool
    /// The owner project; nil for definitions that come with the cloud.
    package let owner: String?

    package init(id: UUID128, name: String, visibility: Visibility, isProtected: Bool, owner: String?) {
        self.id = id
        self.name = name
        self.visibility = visibility
        self.isProtected = isProtected
        self.owner = owner
    }

    /// The error for a namespace that does not exist, or that the caller may not see.
    package static func notFound(_ name: String) -> ResourceError {
        .notFound("Metadata definition namespace=\(name.prefix(MetadataLimits.nameLengthMax)) was not found.")
    }

    /// - Throws: 403 for the namespace if it is protected.
    package func requireDeletable() throws {
        guard !isProtected else {
            throw ResourceError.forbidden("Metadata definition namespace \(name) is protected and cannot be deleted.")
        }
    }

    /// - Parameter part: `object`, `tag`, …
    /// - Throws: 403 for a part of the namespace if it is protected.
    package func requireDeletable(_ part: String, _ partName: String) throws {
        guard !isProtected else {
            throw ResourceError.forbidden(
                "Metadata definition \(part) \(partName.prefix(MetadataLimits.nameLengthMax)) is protected and cannot be deleted.")
        }
    }
}

/// Limits of metadata definitions.
package enum MetadataLimits {
    package static let nameLengthMax = 80
    package static let descriptionLengthMax = 500
    package static let textLengthMax = 65_535
    /// Objects, properties, tags or associations of one namespace.
    package static let partsMax = 1000
}

/// Adds the prefix of a type of resources to the names of a namespace's properties, as clients set them on such a resource.
package enum MetadataPrefix {
    /// - Parameter document: a namespace as shown, with its parts.
    package static func applied(to document: JSONValue, resourceType: String) -> JSONValue {
        let association = document["resource_type_associations"]?.arrayValue?.first { $0["name"]?.stringValue == resourceType }
        guard let prefix = association?["prefix"]?.stringValue, !prefix.isEmpty, var namespace = document.objectValue else {
            return document
        }
        if let properties = namespace["properties"] { namespace["properties"] = named(properties, prefix) }
        if let objects = namespace["objects"]?.arrayValue {
            namespace["objects"] = .array(
                objects.map { item in
                    guard var object = item.objectValue else { return item }
                    if let properties = object["properties"] { object["properties"] = named(properties, prefix) }
                    if let required = object["required"]?.arrayValue {
                        object["required"] = JSONValue(required.compactMap(\.stringValue).map { prefix + $0 })
                    }
                    return .object(object)
                })
        }
        return .object(namespace)
    }

    private static func named(_ properties: JSONValue, _ prefix: String) -> JSONValue {
        .object(JSONObject((properties.objectValue?.members ?? []).map { (prefix + $0.name, $0.value) }))
    }
}
