package import JSON
import Kernel

/// A JSON patch (RFC 6902) with the operations and paths that Ironic's clients send.
///
/// The operations are `add`, `replace`, `remove` and `test`. A path starts with a member of the resource and continues with the keys of
/// objects and the indexes of lists. As in the RFC, `add` to an existing path replaces the value, and the key `-` appends to a list.
package struct JSONPatch: Sendable {
    package enum Verb: String, Sendable { case add, replace, remove, test }

    package struct Operation: Sendable {
        package let verb: Verb
        /// The member of the resource, then keys.
        package let path: [String]
        /// Null for `remove`.
        package let value: JSONValue

        /// The path as a JSON pointer.
        package var pointer: String {
            "/" + path.map { $0.replacing("~", with: "~0").replacing("/", with: "~1") }.joined(separator: "/")
        }
    }

    package let operations: [Operation]

    /// The members of the resource that the patch names.
    package var members: Set<String> { Set(operations.map { $0.path[0] }) }

    /// - Throws: 400 for anything but a list of valid operations.
    package init(_ body: JSONValue) throws {
        guard let items = body.arrayValue else {
            throw ResourceError.badRequest("The body of a PATCH must be a list of operations (RFC 6902).")
        }
        guard !items.isEmpty, items.count <= BareMetalLimits.patchOperationsMax else {
            throw ResourceError.badRequest(
                "A patch must have 1 to \(BareMetalLimits.patchOperationsMax) operations; this one has \(items.count).")
        }
        operations = try items.map(JSONPatch.operation)
    }

    private static func operation(_ item: JSONValue) throws -> Operation {
        guard let object = item.objectValue, let word = object["op"]?.stringValue, let pointer = object["path"]?.stringValue else {
            throw ResourceError.badRequest("An operation of a patch must be an object with 'op' and 'path'.")
        }
        guard let verb = Verb(rawValue: word) else {
            throw ResourceError.badRequest(
                "Invalid input for op. Value: '\(word.prefix(64))'. It must be add, replace, remove or test.")
        }
        guard verb == .remove || object["value"] != nil else {
            throw ResourceError.badRequest("The operation \(verb.rawValue) of \(pointer.prefix(64)) requires a 'value'.")
        }
        if let other = object.names.first(where: { !["op", "path", "value"].contains($0) }) {
            throw ResourceError.badRequest("An operation of a patch has no member '\(other.prefix(64))'.")
        }
        return Operation(verb: verb, path: try keys(pointer), value: object["value"] ?? .null)
    }

    /// The reference tokens of a JSON pointer (RFC 6901).
    private static func keys(_ pointer: String) throws -> [String] {
        let invalid = ResourceError.badRequest(
            "Invalid input for path. Value: '\(pointer.prefix(64))'. It must be a JSON pointer that names a member, such as /extra/rack.")
        guard pointer.hasPrefix("/"), pointer.utf8.count <= BareMetalLimits.patchPathMax else { throw invalid }
        let keys = try pointer.dropFirst().split(separator: "/", omittingEmptySubsequences: false).map { token -> String in
            var key = ""
            var isEscaped = false
            for character in token {
                if isEscaped {
                    guard character == "0" || character == "1" else { throw invalid }
                    key.append(character == "0" ? "~" : "/")
                    isEscaped = false
                } else if character == "~" {
                    isEscaped = true
                } else {
                    key.append(character)
                }
            }
            guard !isEscaped else { throw invalid }
            return key
        }
        guard keys.first?.isEmpty == false else { throw invalid }
        return keys
    }

    /// Applies all operations to a resource.
    ///
    /// - Parameter members: the members that the patch may name.
    /// - Throws: 400 for other members, and for paths that do not exist.
    package func applied(to resource: JSONObject, members allowed: Set<String>) throws -> JSONObject {
        var result = JSONValue.object(resource)
        for operation in operations {
            guard allowed.contains(operation.path[0]) else {
                throw ResourceError.badRequest("'/\(operation.path[0].prefix(64))' is an internal attribute and can not be updated.")
            }
            try apply(operation, operation.path[...], to: &result)
        }
        return result.objectValue ?? [:]
    }

    private func missing(_ operation: Operation) -> ResourceError {
        .badRequest("Couldn't apply patch: '\(operation.pointer.prefix(128))' does not exist.")
    }

    private func apply(_ operation: Operation, _ path: ArraySlice<String>, to value: inout JSONValue) throws {
        guard let key = path.first else { return }
        let rest = path.dropFirst()
        if var object = value.objectValue {
            if rest.isEmpty {
                try set(operation, key, in: &object, isMember: path.startIndex == 0)
            } else {
                // A member that has no value yet is an empty object for the operations below it.
                var inner = object[key] ?? .null
                if inner == .null, path.startIndex == 0, operation.verb == .add { inner = [:] }
                guard inner != .null else { throw missing(operation) }
                try apply(operation, rest, to: &inner)
                object[key] = inner
            }
            value = .object(object)
        } else if var list = value.arrayValue {
            try apply(operation, key, rest, in: &list)
            value = .array(list)
        } else {
            throw missing(operation)
        }
    }

    private func set(_ operation: Operation, _ key: String, in object: inout JSONObject, isMember: Bool) throws {
        switch operation.verb {
        case .add: object[key] = operation.value
        case .replace:
            guard isMember || object[key] != nil else { throw missing(operation) }
            object[key] = operation.value
        case .remove:
            guard object[key] != nil else { throw missing(operation) }
            object[key] = isMember ? .null : nil
        case .test:
            guard object[key] ?? .null == operation.value else {
                throw ResourceError.badRequest("Couldn't apply patch: '\(operation.pointer.prefix(128))' has another value.")
            }
        }
    }

    private func apply(_ operation: Operation, _ key: String, _ rest: ArraySlice<String>, in list: inout [JSONValue]) throws {
        if key == "-", rest.isEmpty, operation.verb == .add {
            list.append(operation.value)
            return
        }
        guard let index = Int(key), index >= 0, key == String(index), index < list.count + (operation.verb == .add && rest.isEmpty ? 1 : 0)
        else { throw missing(operation) }
        guard rest.isEmpty else { return try apply(operation, rest, to: &list[index]) }
        switch operation.verb {
        case .add: list.insert(operation.value, at: index)
        case .replace: list[index] = operation.value
        case .remove: list.remove(at: index)
        case .test:
            guard list[index] == operation.value else {
                throw ResourceError.badRequest("Couldn't apply patch: '\(operation.pointer.prefix(128))' has another value.")
            }
        }
    }
}
