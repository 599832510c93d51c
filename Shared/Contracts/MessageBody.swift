package import JSON

/// The body of one type of message: senders and readers use the same declaration.
///
/// Readers ignore members that they do not know, and added members must be optional, so that two releases can run side by side. A
/// change that an earlier reader would misunderstand raises `version`.
package protocol MessageBody: Codable, Sendable {
    /// The member `type` of the body, and the message's type.
    static var type: String { get }
    /// The version that is written, and the highest one that is read. A body without the member `message_version` has version 1.
    static var version: Int { get }
}

/// A message with an answer.
package protocol MessageQuestion: MessageBody {
    associatedtype Answer: Codable & Sendable
}

extension MessageBody {
    package static var version: Int { 1 }

    /// The body with its type and version.
    ///
    /// - Throws: `EncodingError` for a number without a JSON form.
    package func document() throws -> JSONValue {
        var object: JSONObject = ["type": .string(Self.type)]
        if Self.version > 1 { object["message_version"] = JSONValue(Self.version) }
        for member in try JSONValue(encoding: self).objectValue?.members ?? [] { object[member.name] = member.value }
        return .object(object)
    }

    /// Reads a body.
    ///
    /// - Throws: `DecodingError` naming the member that is missing or has the wrong type.
    package init(document: JSONValue) throws {
        // In a queue with a single type of question the member may be missing, as in release 0.1.0.
        if let type = document["type"], type != .string(Self.type) { throw DecodingError.wrong(["type"], "must be \(Self.type)") }
        if let version = document["message_version"]?.intValue, version > Self.version {
            throw DecodingError.wrong(["message_version"], "is \(version); this release reads \(Self.type) up to \(Self.version)")
        }
        self = try document.decode(as: Self.self)
    }
}

/// A value within a message that is decoded separately. If it cannot be decoded, the rest of the message is still usable; the
/// value is stored as received.
package struct Enclosed<Value: Codable & Sendable>: Codable, Sendable, Hashable {
    package let document: JSONValue

    /// - Throws: `EncodingError`.
    package init(_ value: Value) throws { document = try JSONValue(encoding: value) }

    /// The value as stored or received.
    package init(document: JSONValue) { self.document = document }

    /// - Throws: `DecodingError`.
    package func read() throws -> Value { try document.decode(as: Value.self) }

    package init(from decoder: any Decoder) throws { document = try JSONValue(from: decoder) }
    package func encode(to encoder: any Encoder) throws { try document.encode(to: encoder) }
}
