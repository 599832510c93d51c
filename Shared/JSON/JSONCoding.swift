/// Converts Swift values to JSON documents and back: `Codable` without text in between.
extension JSONValue {
    /// Encodes `value`. Members of dictionaries are sorted by name.
    ///
    /// - Throws: `EncodingError`.
    package init(encoding value: some Encodable) throws {
        self = try ValueEncoder.document(of: value, path: [])
    }

    /// Decodes a value from the document.
    ///
    /// - Throws: `DecodingError`.
    package func decode<Value: Decodable>(as type: Value.Type = Value.self) throws -> Value {
        try ValueDecoder(value: self, codingPath: []).read(type)
    }
}

extension DecodingError {
    /// The path of the invalid member: `ports[0].mac_address`; empty for the whole document.
    package var path: String {
        guard let context = context else { return "" }
        var path = context.codingPath
        if case .keyNotFound(let key, _) = self { path.append(key) }
        return path.reduce(into: "") { text, key in
            if let index = key.intValue { text += "[\(index)]" } else { text += (text.isEmpty ? "" : ".") + key.stringValue }
        }
    }

    /// The violated rule: `must be a string, not integer`.
    package var problem: String {
        if case .keyNotFound = self { return "is missing" }
        return context?.debugDescription ?? "cannot be read"
    }

    /// The path and the violated rule: `size: is missing`.
    package var summary: String { path.isEmpty ? problem : "\(path): \(problem)" }

    private var context: Context? {
        switch self {
        case .keyNotFound(_, let context), .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
            context
        @unknown default: nil
        }
    }

    /// The error of a value that has the right type but violates another rule.
    ///
    /// - Parameter path: names of the members, outermost first.
    package static func wrong(_ path: [String], _ problem: String) -> DecodingError {
        .dataCorrupted(Context(codingPath: path.map { JSONKey($0) }, debugDescription: problem))
    }
}

/// The position of a value: a member's name or an index in an array.
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
