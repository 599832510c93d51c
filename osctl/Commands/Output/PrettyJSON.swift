import JSON

/// Pretty-printed JSON: two spaces of indentation, empty containers on one line.
enum PrettyJSON {
    static func text(_ value: JSONValue) -> String {
        var text = ""
        write(value, 0, &text)
        return text + "\n"
    }

    private static func write(_ value: JSONValue, _ depth: Int, _ text: inout String) {
        let indent = String(repeating: "  ", count: depth + 1)
        let end = "\n" + String(repeating: "  ", count: depth)
        switch value {
        case .array(let elements) where !elements.isEmpty:
            text += "["
            for (index, element) in elements.enumerated() {
                text += (index == 0 ? "\n" : ",\n") + indent
                write(element, depth + 1, &text)
            }
            text += end + "]"
        case .object(let object) where !object.isEmpty:
            text += "{"
            for (index, member) in object.members.enumerated() {
                text += (index == 0 ? "\n" : ",\n") + indent + JSONValue.string(member.name).description + ": "
                write(member.value, depth + 1, &text)
            }
            text += end + "}"
        default: text += value.description
        }
    }
}
