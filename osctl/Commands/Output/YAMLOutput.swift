import JSON

/// YAML 1.2 in block style. A string that a parser could read as another type is written as a JSON string, which is valid YAML.
enum YAMLOutput {
    static func text(_ value: JSONValue) -> String {
        var text = ""
        write(value, 0, &text)
        return text
    }

    private static func write(_ value: JSONValue, _ depth: Int, _ text: inout String) {
        let indent = String(repeating: " ", count: depth * 2)
        switch value {
        case .array(let elements) where !elements.isEmpty:
            for element in elements {
                text += indent + "-"
                nest(element, depth + 1, &text, isElement: true)
            }
        case .object(let object) where !object.isEmpty:
            for member in object.members {
                text += indent + scalar(member.name) + ":"
                nest(member.value, depth + 1, &text, isElement: false)
            }
        default: text += indent + inline(value) + "\n"
        }
    }

    private static func nest(_ value: JSONValue, _ depth: Int, _ text: inout String, isElement: Bool) {
        let isBlock = value.arrayValue?.isEmpty == false || value.objectValue?.isEmpty == false
        guard isBlock else {
            text += " " + inline(value) + "\n"
            return
        }
        guard isElement else {
            text += "\n"
            write(value, depth, &text)
            return
        }
        // The first member is on the line of its dash.
        var block = ""
        write(value, depth, &block)
        text += " " + block.dropFirst(depth * 2)
    }

    private static func inline(_ value: JSONValue) -> String {
        if case .string(let string) = value { return scalar(string) }
        return value.description
    }

    private static let words: Set<String> = ["", "true", "false", "null", "yes", "no", "on", "off", "y", "n", "~", ".inf", "-.inf", ".nan"]

    static func scalar(_ string: String) -> String {
        let isPlain =
            !words.contains(string.lowercased())
            && string.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"),
                    UInt8(ascii: "0")...UInt8(ascii: "9"), UInt8(ascii: "-"), UInt8(ascii: "_"), UInt8(ascii: "."),
                    UInt8(ascii: "/"), UInt8(ascii: " "):
                    true
                default: false
                }
            }
            && (string.utf8.first.map { isLetter($0) || $0 == UInt8(ascii: "/") || $0 == UInt8(ascii: "_") } ?? false
                || isIdentifier(string))
            && string.utf8.last != UInt8(ascii: " ")
        return isPlain ? string : JSONValue.string(string).description
    }

    private static func isLetter(_ byte: UInt8) -> Bool { (65...90).contains(byte) || (97...122).contains(byte) }

    /// A UUID that begins with a digit; its dashes prevent reading `1e5-…` as a number.
    private static func isIdentifier(_ string: String) -> Bool {
        string.utf8.count == 36 && string.utf8.lazy.filter { $0 == UInt8(ascii: "-") }.count == 4
    }
}
