/// A small XML document as values. The only way this service writes XML, so that no text of a user can become markup.
package struct XMLTree: Sendable, Hashable {
    package var name: String
    package private(set) var attributes: [Attribute]
    package var children: [XMLTree]
    /// Character data directly inside the element.
    package var text: String

    /// An attribute of an element; unescaped.
    package struct Attribute: Sendable, Hashable {
        package let name: String
        package let value: String
    }

    package init(_ name: String, _ attributes: KeyValuePairs<String, String> = [:], _ children: [XMLTree] = []) {
        self.name = name
        self.attributes = attributes.map { Attribute(name: $0.key, value: $0.value) }
        self.children = children
        self.text = ""
    }

    package init(_ name: String, _ attributes: KeyValuePairs<String, String> = [:], text: String) {
        self.init(name, attributes)
        self.text = text
    }

    /// The value of an attribute; nil when there is none.
    package subscript(_ attribute: String) -> String? { attributes.first { $0.name == attribute }?.value }

    /// The first child of that name.
    package func child(_ name: String) -> XMLTree? { children.first { $0.name == name } }

    /// Every child of that name.
    package func all(_ name: String) -> [XMLTree] { children.filter { $0.name == name } }

    /// Adds an element after the last child.
    package mutating func append(_ child: XMLTree) { children.append(child) }

    /// Gives an attribute its value, in place of an earlier one.
    package mutating func set(_ name: String, _ value: String) {
        attributes.removeAll { $0.name == name }
        attributes.append(Attribute(name: name, value: value))
    }

    // MARK: writing

    /// The document without a declaration, indented by two spaces a level.
    package var rendered: String {
        var out = ""
        render(into: &out, depth: 0)
        return out
    }

    private func render(into out: inout String, depth: Int) {
        let indent = String(repeating: "  ", count: depth)
        out += indent + "<" + name
        for attribute in attributes {
            out += " " + attribute.name + "='"
            XMLTree.escape(attribute.value, into: &out)
            out += "'"
        }
        if children.isEmpty, text.isEmpty {
            out += "/>\n"
            return
        }
        out += ">"
        XMLTree.escape(text, into: &out)
        if !children.isEmpty {
            out += "\n"
            for child in children { child.render(into: &out, depth: depth + 1) }
            out += indent
        }
        out += "</" + name + ">\n"
    }

    /// Escapes markup; characters that XML 1.0 cannot hold at all (most control characters) become U+FFFD.
    private static func escape(_ text: String, into out: inout String) {
        for scalar in text.unicodeScalars {
            switch scalar {
            case "&": out += "&amp;"
            case "<": out += "&lt;"
            case ">": out += "&gt;"
            case "'": out += "&apos;"
            case "\"": out += "&quot;"
            case "\t", "\n", "\r": out += "&#\(scalar.value);"
            default:
                let allowed = scalar.value >= 0x20 && scalar.value != 0xfffe && scalar.value != 0xffff
                out.unicodeScalars.append(allowed ? scalar : "\u{fffd}")
            }
        }
    }
}

/// A document that is malformed or outside the supported subset of XML.
package struct XMLParseError: Error, Sendable, CustomStringConvertible {
    package let reason: String
    package let offset: Int
    package var description: String { "XML: \(reason) at byte \(offset)" }
}

extension XMLTree {
    /// Reads libvirt's XML: elements, attributes, text, comments, the predefined and numeric entities. Document type
    /// declarations are refused, which rules out entity expansion attacks.
    package static func parse(_ text: String) throws(XMLParseError) -> XMLTree {
        var reader = XMLReader(Array(text.utf8))
        return try reader.document()
    }
}

private struct XMLReader {
    private let bytes: [UInt8]
    private var index = 0
    private static let depthMax = 64

    init(_ bytes: [UInt8]) { self.bytes = bytes }

    mutating func document() throws(XMLParseError) -> XMLTree {
        try skipMisc()
        let root = try element(depth: 0)
        try skipMisc()
        guard index == bytes.count else { throw fail("content after the document") }
        return root
    }

    private func fail(_ reason: String) -> XMLParseError { XMLParseError(reason: reason, offset: index) }

    private func at(_ text: StaticString) -> Bool {
        let length = text.utf8CodeUnitCount
        guard index + length <= bytes.count else { return false }
        for offset in 0..<length where bytes[index + offset] != text.utf8Start[offset] { return false }
        return true
    }

    private mutating func skipPast(_ text: StaticString) throws(XMLParseError) {
        while index < bytes.count, !at(text) { index += 1 }
        guard index < bytes.count else { throw fail("unexpected end") }
        index += text.utf8CodeUnitCount
    }

    private mutating func skipSpace() {
        while index < bytes.count, [0x20, 0x09, 0x0a, 0x0d].contains(bytes[index]) { index += 1 }
    }

    private mutating func skipMisc() throws(XMLParseError) {
        while true {
            skipSpace()
            if at("<?") { try skipPast("?>") } else if at("<!--") { try skipPast("-->") } else { return }
        }
    }

    private mutating func name() throws(XMLParseError) -> String {
        let start = index
        while index < bytes.count, !" \t\r\n/>='\"<".utf8.contains(bytes[index]) { index += 1 }
        guard index > start else { throw fail("a name is missing") }
        return String(decoding: bytes[start..<index], as: UTF8.self)
    }

    private mutating func element(depth: Int) throws(XMLParseError) -> XMLTree {
        guard depth < XMLReader.depthMax else { throw fail("nested too deeply") }
        guard at("<"), !at("<!"), !at("</") else { throw fail("an element is missing") }
        index += 1
        var tree = XMLTree(try name())
        while true {
            skipSpace()
            if at("/>") {
                index += 2
                return tree
            }
            if at(">") {
                index += 1
                break
            }
            let attribute = try name()
            skipSpace()
            guard at("=") else { throw fail("an attribute has no value") }
            index += 1
            skipSpace()
            guard index < bytes.count, bytes[index] == 0x27 || bytes[index] == 0x22 else {
                throw fail("an attribute's value is not quoted")
            }
            let quote = bytes[index]
            index += 1
            let start = index
            while index < bytes.count, bytes[index] != quote { index += 1 }
            guard index < bytes.count else { throw fail("unexpected end") }
            tree.set(attribute, try unescape(bytes[start..<index]))
            index += 1
        }
        try content(of: &tree, depth: depth)
        return tree
    }

    private mutating func content(of tree: inout XMLTree, depth: Int) throws(XMLParseError) {
        while true {
            let start = index
            while index < bytes.count, bytes[index] != 0x3c { index += 1 }
            guard index < bytes.count else { throw fail("unexpected end") }
            tree.text += try unescape(bytes[start..<index])
            if at("</") {
                index += 2
                guard try name() == tree.name else { throw fail("a closing tag does not match") }
                skipSpace()
                guard at(">") else { throw fail("a closing tag is not closed") }
                index += 1
                if !tree.children.isEmpty { tree.text = "" }
                return
            }
            if at("<!--") { try skipPast("-->") } else { tree.append(try element(depth: depth + 1)) }
        }
    }

    private func unescape(_ raw: ArraySlice<UInt8>) throws(XMLParseError) -> String {
        guard raw.contains(0x26) else { return String(decoding: raw, as: UTF8.self) }
        var out = ""
        let text = String(decoding: raw, as: UTF8.self)
        var rest = text[...]
        while let mark = rest.firstIndex(of: "&") {
            out += rest[..<mark]
            guard let end = rest[mark...].firstIndex(of: ";") else { throw fail("an entity has no end") }
            let entity = rest[rest.index(after: mark)..<end]
            switch entity {
            case "amp": out += "&"
            case "lt": out += "<"
            case "gt": out += ">"
            case "apos": out += "'"
            case "quot": out += "\""
            default:
                let number =
                    entity.hasPrefix("#x")
                    ? UInt32(entity.dropFirst(2), radix: 16) : UInt32(entity.dropFirst(1), radix: 10)
                guard entity.hasPrefix("#"), let number, let scalar = Unicode.Scalar(number) else {
                    throw fail("an unknown entity")
                }
                out.unicodeScalars.append(scalar)
            }
            rest = rest[rest.index(after: end)...]
        }
        return out + rest
    }
}
