import Foundation

/// Swift values as JSON documents, by Foundation's coders: for what is written and read a few times per operation. What
/// passes a request uses `JSONWriter`.
extension JSONValue {
    /// The document that `value` encodes itself as.
    ///
    /// - Throws: `EncodingError`.
    package init(encoding value: some Encodable) throws {
        let data = try JSONEncoder().encode(value)
        do { self = try JSONValue.parse(data) } catch {
            throw EncodingError.invalidValue(value, .init(codingPath: [], debugDescription: error.description))
        }
    }

    /// The value that the document describes.
    ///
    /// - Throws: `DecodingError`.
    package func decode<Value: Decodable>(as type: Value.Type = Value.self) throws -> Value {
        var writer = JSONWriter()
        writer.value(self)
        return try JSONDecoder().decode(type, from: Data(writer.bytes))
    }
}

extension DecodingError {
    /// What is wrong, and where: `size: a value is missing`.
    package var summary: String {
        let (context, what): (Context, String) =
            switch self {
            case .keyNotFound(let key, let context):
                (Context(codingPath: context.codingPath + [key], debugDescription: ""), "a value is missing")
            case .typeMismatch(let type, let context): (context, "not of type \(type)")
            case .valueNotFound(let type, let context): (context, "null where \(type) is needed")
            case .dataCorrupted(let context): (context, context.debugDescription)
            @unknown default: (Context(codingPath: [], debugDescription: ""), "it cannot be read")
            }
        let path = context.codingPath.map(\.stringValue).joined(separator: ".")
        return path.isEmpty ? what : "\(path): \(what)"
    }
}
