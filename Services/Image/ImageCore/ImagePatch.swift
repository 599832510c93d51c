package import JSON
import Kernel

/// A JSON patch in Image's dialect: paths with one member; operations add, replace and remove.
package struct ImagePatch: Sendable {
    /// The two dialects, by media type.
    package enum Dialect: Sendable {
        /// `application/openstack-images-v2.0-json-patch`: `{"replace": "/name", "value": "x"}`
        case version20
        /// `application/openstack-images-v2.1-json-patch`: `{"op": "replace", "path": "/name", "value": "x"}`
        case version21

        /// The dialect of a request's media type; nil for any other type.
        package init?(mediaType: String) {
            let name = mediaType.split(separator: ";").first.map { $0.filter { $0 != " " }.lowercased() } ?? ""
            switch name {
            case "application/openstack-images-v2.1-json-patch": self = .version21
            case "application/openstack-images-v2.0-json-patch": self = .version20
            default: return nil
            }
        }
    }

    /// The kind of an operation.
    package enum Verb: String, Sendable {
        case add, replace, remove
    }

    /// One operation on one attribute or property; `value` is null for `remove`.
    package struct Operation: Sendable {
        package let verb: Verb
        package let name: String
        package let value: JSONValue
    }

    package let dialect: Dialect
    package let operations: [Operation]

    /// - Throws: 400 for anything but a list of valid operations, 403 for paths below an attribute.
    package init(_ body: JSONValue, dialect: Dialect) throws {
        guard let items = body.arrayValue else {
            throw ResourceError.badRequest("Request body must be a JSON array of operation objects.")
        }
        guard items.count <= ImageLimits.patchOperationsMax else {
            throw ResourceError.badRequest("A patch has at most \(ImageLimits.patchOperationsMax) operations.")
        }
        self.dialect = dialect
        operations = try items.map { try ImagePatch.operation($0, dialect) }
    }

    private static func operation(_ item: JSONValue, _ dialect: Dialect) throws -> Operation {
        guard let object = item.objectValue else {
            throw ResourceError.badRequest("Operations must be JSON objects.")
        }
        let verb: Verb
        let path: String
        switch dialect {
        case .version21:
            guard let word = object["op"]?.stringValue, let known = Verb(rawValue: word), let text = object["path"]?.stringValue
            else {
                throw ResourceError.badRequest("An operation needs 'op' (add, replace or remove) and 'path'.")
            }
            verb = known
            path = text
        case .version20:
            let found = [Verb.add, .replace, .remove].filter { object[$0.rawValue] != nil }
            guard found.count == 1, let text = object[found[0].rawValue]?.stringValue else {
                throw ResourceError.badRequest("Operation objects must contain exactly one member named add, replace or remove.")
            }
            verb = found[0]
            path = text
        }
        guard verb == .remove || object["value"] != nil else {
            throw ResourceError.badRequest("Operation \"\(verb.rawValue)\" requires a member named \"value\".")
        }
        return Operation(verb: verb, name: try name(path), value: object["value"] ?? .null)
    }

    /// The single reference token of a JSON pointer (RFC 6901).
    private static func name(_ pointer: String) throws -> String {
        guard pointer.hasPrefix("/"), pointer.count > 1 else {
            throw ResourceError.badRequest("Pointer `\(pointer.prefix(64))` does not start with \"/\" and a name.")
        }
        let rest = pointer.dropFirst()
        guard !rest.contains("/") else {
            let root = rest.prefix { $0 != "/" }
            throw ImageAttribute.byName[String(root)] == nil
                ? ResourceError.badRequest("Invalid JSON pointer for this resource: '\(pointer.prefix(64))'")
                : ResourceError.forbidden("Attribute '\(root)' has no parts that can be changed.")
        }
        var name = ""
        var escaped = false
        for character in rest {
            if escaped {
                guard character == "0" || character == "1" else {
                    throw ResourceError.badRequest(
                        "Pointer `\(pointer.prefix(64))` contains \"~\" not part of a recognized escape sequence.")
                }
                name.append(character == "0" ? "~" : "/")
                escaped = false
            } else if character == "~" {
                escaped = true
            } else {
                name.append(character)
            }
        }
        guard !escaped else {
            throw ResourceError.badRequest("Pointer `\(pointer.prefix(64))` contains \"~\" not part of a recognized escape sequence.")
        }
        return name
    }

    /// The image after all operations.
    ///
    /// - Throws: 403 for attributes that clients cannot change, 409 for a property that does not exist or already exists, 400 for
    ///   invalid values.
    package func applied(to image: Image, isAdmin: Bool) throws -> Image {
        var result = image
        for operation in operations { try apply(operation, &result, isAdmin) }
        return result
    }

    private func apply(_ operation: Operation, _ image: inout Image, _ isAdmin: Bool) throws {
        let name = operation.name
        let isBase = ImageAttribute.byName[name] != nil
        switch operation.verb {
        case .add:
            if dialect == .version20, isBase || image.properties[name] != nil {
                throw ResourceError.conflict("Property \(name) already present.")
            }
            try image.set(name, operation.value, isAdmin: isAdmin)
        case .replace:
            guard isBase || image.properties[name] != nil else {
                throw ResourceError.conflict("Property \(name) does not exist.")
            }
            try image.set(name, operation.value, isAdmin: isAdmin)
        case .remove:
            guard !isBase else { throw ResourceError.forbidden("Property \(name) may not be removed.") }
            guard !name.hasPrefix(ImageAttribute.reservedPrefix) else {
                throw ResourceError.forbidden("Attribute '\(name)' is reserved.")
            }
            guard image.properties[name] != nil else {
                throw ResourceError.conflict("Property \(name) does not exist.")
            }
            image.properties[name] = nil
        }
    }
}
