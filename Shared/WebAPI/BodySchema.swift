package import JSON
package import Kernel

/// The shape of a request body: what is allowed, in one value from which validation and OpenAPI both follow.
package indirect enum BodySchema: Sendable {
    case any
    case string(min: Int, max: Int, format: Format?)
    /// Whole numbers, also as text, as OpenStack's clients send them.
    case integer(min: Int, max: Int)
    case number
    /// Booleans; also the words and digits that oslo.utils takes for one.
    case boolean
    /// Only true and false, as in Identity.
    case strictBoolean
    case enumeration([String])
    case array(BodySchema, min: Int, max: Int)
    case object([Property], additional: Additional)
    case nullable(BodySchema)
    /// The first that fits.
    case oneOf([BodySchema])

    package enum Format: String, Sendable {
        case uuid, ip, cidr, mac, base64
        case dateTime = "date-time"
        /// Printable text that does not begin or end with white space.
        case name
        /// A name that neither begins nor ends with white space, which Nova refuses.
        case trimmedName
        case hostname
        /// A host name without a domain.
        case hostLabel
    }

    package enum Additional: Sendable {
        case forbidden
        case allowed
        /// Any names, with values of this shape.
        case values(BodySchema)
    }

    package struct Property: Sendable {
        package let name: String
        package let schema: BodySchema
        package let required: Bool
        package let versions: VersionRange

        package init(_ name: String, _ schema: BodySchema, required: Bool = false, versions: VersionRange = .all) {
            self.name = name
            self.schema = schema
            self.required = required
            self.versions = versions
        }
    }

    // MARK: short forms

    package static let text = BodySchema.string(min: 0, max: 255, format: nil)
    package static func text(_ max: Int) -> BodySchema { .string(min: 0, max: max, format: nil) }
    package static let name = BodySchema.string(min: 1, max: 255, format: .name)
    package static let trimmedName = BodySchema.string(min: 1, max: 255, format: .trimmedName)
    package static let uuid = BodySchema.string(min: 32, max: 36, format: .uuid)
    package static let identifier = BodySchema.string(min: 1, max: 255, format: nil)
    package static let stringMap = BodySchema.object([], additional: .values(.string(min: 0, max: 255, format: nil)))
    package static let integer = BodySchema.integer(min: Int(Int32.min), max: Int(Int32.max))
    package static func object(_ properties: [Property]) -> BodySchema { .object(properties, additional: .forbidden) }
    /// The value of an action without parameters. Clients send null, `{}` or, as gophercloud, `""`.
    package static let noMembers = BodySchema.nullable(.oneOf([.object([]), .enumeration([""])]))
    package static func list(_ element: BodySchema) -> BodySchema { .array(element, min: 0, max: 1000) }
    /// `{"server": {…}}`
    package static func wrapped(_ name: String, _ schema: BodySchema, additional: Additional = .forbidden) -> BodySchema {
        .object([Property(name, schema, required: true)], additional: additional)
    }

    // MARK: validation

    /// Checks `value` and returns it with numbers and booleans in their own type.
    ///
    /// - Throws: 400 that names the field by its path, the value and the rule.
    package func validate(_ value: JSONValue, path: String = "", version: Microversion) throws -> JSONValue {
        switch self {
        case .any: return value
        case .nullable(let inner):
            return value.isNull ? .null : try inner.validate(value, path: path, version: version)
        case .string(let min, let max, let format):
            guard let text = value.stringValue else { throw wrongType(value, path, "string") }
            let length = text.unicodeScalars.count
            if length < min { throw invalid(value, path, "is too short (minimum \(min) characters)") }
            if length > max { throw invalid(value, path, "is too long (maximum \(max) characters)") }
            if let format, let problem = format.problem(text) { throw invalid(value, path, problem) }
            return value
        case .integer(let min, let max):
            guard let number = value.intValue ?? value.stringValue.flatMap({ Int($0) }) else {
                throw wrongType(value, path, "integer")
            }
            if number < min { throw invalid(value, path, "is less than the minimum of \(min)") }
            if number > max { throw invalid(value, path, "is greater than the maximum of \(max)") }
            return .integer(Int64(number))
        case .number:
            guard value.doubleValue != nil else { throw wrongType(value, path, "number") }
            return value
        case .boolean:
            guard let bool = BodySchema.boolean(value) else { throw wrongType(value, path, "boolean") }
            return .bool(bool)
        case .strictBoolean:
            guard value.boolValue != nil else { throw wrongType(value, path, "boolean") }
            return value
        case .enumeration(let words):
            guard let text = value.stringValue, words.contains(text) else {
                throw invalid(value, path, "is not one of \(words)")
            }
            return value
        case .array(let element, let min, let max):
            return try validateArray(value, path, version, element, min, max)
        case .object(let properties, let additional):
            return try validateObject(value, path, version, properties, additional)
        case .oneOf(let choices):
            var problems: [String] = []
            for choice in choices {
                do { return try choice.validate(value, path: path, version: version) } catch let error as ResourceError {
                    problems.append(error.message)
                }
            }
            throw choices.count == 1
                ? ResourceError.badRequest(problems[0])
                : invalid(value, path, "fits none of the allowed forms (\(problems.joined(separator: " / ")))")
        }
    }

    private func validateArray(
        _ value: JSONValue, _ path: String, _ version: Microversion, _ element: BodySchema, _ min: Int, _ max: Int
    ) throws -> JSONValue {
        guard let elements = value.arrayValue else { throw wrongType(value, path, "array") }
        if elements.count < min { throw invalid(value, path, "has fewer than \(min) items") }
        if elements.count > max { throw invalid(.integer(Int64(elements.count)), path, "items are more than \(max)") }
        return .array(
            try elements.enumerated().map { index, item in
                try element.validate(item, path: "\(path)[\(index)]", version: version)
            })
    }

    private func validateObject(
        _ value: JSONValue, _ path: String, _ version: Microversion, _ properties: [Property], _ additional: Additional
    ) throws -> JSONValue {
        guard let object = value.objectValue else { throw wrongType(value, path, "object") }
        var result = JSONObject()
        let prefix = path.isEmpty ? "" : path + "."
        let known = properties.filter { $0.versions.contains(version) }
        for property in known where property.required && object[property.name] == nil {
            throw ResourceError.badRequest(
                "Invalid input\(BodySchema.place(path)): '\(property.name)' is a required property")
        }
        for member in object.members {
            if let property = known.first(where: { $0.name == member.name }) {
                result[member.name] = try property.schema.validate(
                    member.value, path: prefix + member.name, version: version)
                continue
            }
            switch additional {
            case .forbidden:
                throw ResourceError.badRequest(
                    """
                    Invalid input\(BodySchema.place(path)): Additional properties are not allowed \
                    ('\(member.name.prefix(64))' was unexpected)
                    """
                )
            case .allowed: result[member.name] = member.value
            case .values(let schema):
                guard (1...255).contains(member.name.unicodeScalars.count) else {
                    throw invalid(.string(member.name), path, "is a name outside 1 to 255 characters")
                }
                result[member.name] = try schema.validate(member.value, path: prefix + member.name, version: version)
            }
        }
        return .object(result)
    }

    /// The spellings of booleans that oslo.utils' `strutils` accepts.
    package static func boolean(_ value: JSONValue) -> Bool? {
        switch value {
        case .bool(let bool): bool
        case .integer(1): true
        case .integer(0): false
        case .string(let text): boolean(text)
        default: nil
        }
    }

    package static func boolean(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "true", "1", "on", "yes", "t", "y": true
        case "false", "0", "off", "no", "f", "n": false
        default: nil
        }
    }

    private static func place(_ path: String) -> String { path.isEmpty ? "" : " for field/attribute \(path)" }

    private func invalid(_ value: JSONValue, _ path: String, _ rule: String) -> ResourceError {
        let shown = value.description
        let short = shown.utf8.count > 120 ? String(shown.prefix(120)) + "…" : shown
        return .badRequest("Invalid input for field/attribute \(path.isEmpty ? "body" : path). Value: \(short). It \(rule).")
    }

    private func wrongType(_ value: JSONValue, _ path: String, _ wanted: String) -> ResourceError {
        invalid(value, path, "is not of type '\(wanted)' but \(value.kindName)")
    }
}

extension BodySchema.Format {
    /// The violated rule; nil if `text` is valid.
    func problem(_ text: String) -> String? {
        switch self {
        case .uuid: UUID128(text) == nil ? "is not a 'uuid'" : nil
        case .ip: IPAddress(text) == nil ? "is not an IP address" : nil
        case .cidr: IPNetwork(text) == nil ? "is not a CIDR" : nil
        case .mac: MACAddress(text) == nil ? "is not a MAC address" : nil
        case .dateTime: Timestamp(text) == nil ? "is not an ISO 8601 time" : nil
        case .base64: BodySchema.Format.isBase64(text) ? nil : "is not base64"
        case .name: nameProblem(text)
        case .trimmedName:
            nameProblem(text)
                ?? (text.first?.isWhitespace == true || text.last?.isWhitespace == true ? "begins or ends with white space" : nil)
        case .hostname: hostnameProblem(text)
        case .hostLabel: text.contains(".") ? "is not a host name without a domain" : hostnameProblem(text)
        }
    }

    private func nameProblem(_ text: String) -> String? {
        if text.unicodeScalars.contains(where: { $0.value < 32 || $0.value == 127 }) {
            return "has a control character"
        }
        if text.allSatisfy(\.isWhitespace) { return "is blank" }
        return nil
    }

    private func hostnameProblem(_ text: String) -> String? {
        let labels = text.split(separator: ".", omittingEmptySubsequences: false)
        let fine = labels.allSatisfy { label in
            (1...63).contains(label.utf8.count) && label.first != "-" && label.last != "-"
                && label.utf8.allSatisfy { byte in
                    (48...57).contains(byte) || (65...90).contains(byte) || (97...122).contains(byte) || byte == 45
                }
        }
        return fine ? nil : "is not a host name"
    }

    private static func isBase64(_ text: String) -> Bool {
        var padding = 0
        var count = 0
        for byte in text.utf8 where byte != 10 && byte != 13 {
            count += 1
            switch byte {
            case 48...57, 65...90, 97...122, UInt8(ascii: "+"), UInt8(ascii: "/"):
                if padding > 0 { return false }
            case UInt8(ascii: "="): padding += 1
            default: return false
            }
        }
        return padding <= 2 && count % 4 == 0
    }
}
