/// Swift values as JSON documents: `Codable` without a detour over text.
extension JSONValue {
    /// The document that `value` encodes itself as. Members of dictionaries are sorted by name.
    ///
    /// - Throws: `EncodingError`.
    package init(encoding value: some Encodable) throws {
        self = try ValueEncoder.document(of: value, path: [])
    }

    /// The value that the document describes.
    ///
    /// - Throws: `DecodingError`.
    package func decode<Value: Decodable>(as type: Value.Type = Value.self) throws -> Value {
        try ValueDecoder(value: self, codingPath: []).read(type)
    }
}

extension DecodingError {
    /// The member that is wrong: `ports[0].mac_address`; empty for the whole document.
    package var path: String {
        guard let context = context else { return "" }
        var path = context.codingPath
        if case .keyNotFound(let key, _) = self { path.append(key) }
        return path.reduce(into: "") { text, key in
            if let index = key.intValue { text += "[\(index)]" } else { text += (text.isEmpty ? "" : ".") + key.stringValue }
        }
    }

    /// What is wrong with it: `must be a string, not integer`.
    package var problem: String {
        if case .keyNotFound = self { return "is missing" }
        return context?.debugDescription ?? "cannot be read"
    }

    /// What is wrong, and where: `size: is missing`.
    package var summary: String { path.isEmpty ? problem : "\(path): \(problem)" }

    private var context: Context? {
        switch self {
        case .keyNotFound(_, let context), .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
            context
        @unknown default: nil
        }
    }

    /// A value that does not follow a rule beyond its type.
    ///
    /// - Parameter path: names of the members, from the outside.
    package static func wrong(_ path: [String], _ problem: String) -> DecodingError {
        .dataCorrupted(Context(codingPath: path.map { JSONKey($0) }, debugDescription: problem))
    }
}

/// Where a value is: a member's name, or a place in an array.
struct JSONKey: CodingKey {
    let stringValue: String
    let intValue: Int?

    init(_ name: String) { (stringValue, intValue) = (name, nil) }
    init(stringValue: String) { self.init(stringValue) }
    init(intValue: Int) { (stringValue, self.intValue) = (String(intValue), intValue) }
}

extension JSONValue: Codable {
    package init(from decoder: any Decoder) throws {
        if let decoder = decoder as? ValueDecoder {
            self = decoder.value
            return
        }
        throw DecodingError.dataCorrupted(
            .init(codingPath: decoder.codingPath, debugDescription: "a JSON document is decoded by JSONValue.decode only"))
    }

    package func encode(to encoder: any Encoder) throws {
        guard let encoder = encoder as? ValueEncoder else {
            throw EncodingError.invalidValue(
                self, .init(codingPath: encoder.codingPath, debugDescription: "a JSON document is encoded by JSONValue(encoding:) only"))
        }
        encoder.put(self)
    }
}

extension JSONObject: Codable {
    package init(from decoder: any Decoder) throws {
        guard let object = try JSONValue(from: decoder).objectValue else {
            throw DecodingError.typeMismatch(
                JSONObject.self, .init(codingPath: decoder.codingPath, debugDescription: "must be an object"))
        }
        self = object
    }

    package func encode(to encoder: any Encoder) throws { try JSONValue.object(self).encode(to: encoder) }
}
