import JSON

/// What a message of one type says: the same declaration for those who send and those who read it.
///
/// Members that a reader does not know are ignored, and members that are added must be optional, so that two releases run
/// side by side. A change that an earlier reader would misunderstand raises `version`.
package protocol MessageBody: Codable, Sendable {
    /// The member `type` of the body, and the message's type.
    static var type: String { get }
    /// The version that is written, and the highest that is read. Without a member `message_version` it is 1.
    static var version: Int { get }
}

/// A message that is answered.
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
    /// - Throws: `DecodingError` naming the member that is missing or of the wrong kind.
    package init(document: JSONValue) throws {
        // A question in a queue with one type of questions may leave it out, as release 0.1.0 does.
        if let type = document["type"], type != .string(Self.type) { throw DecodingError.wrong(["type"], "must be \(Self.type)") }
        if let version = document["message_version"]?.intValue, version > Self.version {
            throw DecodingError.wrong(["message_version"], "is \(version); this release reads \(Self.type) up to \(Self.version)")
        }
        self = try document.decode(as: Self.self)
    }
}

/// A value within a message that is read on its own: one that cannot be read does not spoil the message around it, and it is
/// kept as it came.
package struct Enclosed<Value: Codable & Sendable>: Codable, Sendable, Hashable {
    package let document: JSONValue

    /// - Throws: `EncodingError`.
    package init(_ value: Value) throws { document = try JSONValue(encoding: value) }

    /// As it is stored or was received.
    package init(document: JSONValue) { self.document = document }

    /// - Throws: `DecodingError`.
    package func read() throws -> Value { try document.decode(as: Value.self) }

    package init(from decoder: any Decoder) throws { document = try JSONValue(from: decoder) }
    package func encode(to encoder: any Encoder) throws { try document.encode(to: encoder) }
}
