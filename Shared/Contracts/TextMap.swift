package import JSON

/// Strings by name, such as extra specs and image properties. Numbers and booleans are converted to text, because stored rows and
/// release 0.1.0 have them; other values are ignored.
package struct TextMap: Codable, Sendable, Hashable, ExpressibleByDictionaryLiteral {
    package var texts: [String: String]

    package init(_ texts: [String: String]) { self.texts = texts }
    package init(dictionaryLiteral elements: (String, String)...) { texts = Dictionary(elements) { $1 } }

    package init(_ object: JSONObject) {
        texts = [:]
        for member in object.members {
            switch member.value {
            case .string(let text): texts[member.name] = text
            case .integer, .double, .bool: texts[member.name] = member.value.description
            case .null, .array, .object: continue
            }
        }
    }

    package subscript(name: String) -> String? {
        get { texts[name] }
        set { texts[name] = newValue }
    }

    package init(from decoder: any Decoder) throws { self.init(try JSONObject(from: decoder)) }
    package func encode(to encoder: any Encoder) throws { try JSONValue(encoding: texts).encode(to: encoder) }
}
