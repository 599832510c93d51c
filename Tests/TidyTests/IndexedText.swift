import Foundation

/// Text with positions in UTF-16 units, as regular expressions count.
struct IndexedText {
    let string: String
    private let units: [UInt16]
    var count: Int { units.count }

    init(_ string: String) {
        self.string = string
        units = Array(string.utf16)
    }

    func has(_ word: String) -> Bool { string.contains(word) }

    func first(_ character: Character) -> Int? { character.utf16.first.flatMap { units.firstIndex(of: $0) } }

    func part(_ start: Int, _ end: Int) -> String { String(decoding: units[start..<end], as: UTF16.self) }

    /// The parts between the commas of the parentheses that open at `start`, and where these close.
    func arguments(at start: Int) -> (parts: [IndexedText], end: Int) {
        var parts: [IndexedText] = []
        var depth = 0
        var isString = false
        var begin = start + 1
        var index = start
        while index < units.count {
            switch Character(UnicodeScalar(units[index]) ?? " ") {
            case "\"" where units[index - 1] != UInt16(UInt8(ascii: "\\")): isString.toggle()
            case _ where isString: break
            case "(", "[", "{": depth += 1
            case ")", "]", "}": depth -= 1
            case "," where depth == 1:
                parts.append(IndexedText(part(begin, index)))
                begin = index + 1
            default: break
            }
            if depth == 0 { break }
            index += 1
        }
        let last = part(min(begin, index), index)
        if !last.allSatisfy(\.isWhitespace) { parts.append(IndexedText(last)) }
        return (parts, index)
    }
}

/// A regular expression.
struct Pattern: @unchecked Sendable {
    private let expression: NSRegularExpression

    init(_ text: String) { expression = try! NSRegularExpression(pattern: text) }

    /// Start and end of each match and of its groups; `NSNotFound` for groups without one.
    func matches(_ text: IndexedText) -> [[Int]] {
        expression.matches(in: text.string, range: NSRange(location: 0, length: text.count)).map { match in
            (0..<match.numberOfRanges).flatMap { group -> [Int] in
                let range = match.range(at: group)
                return range.location == NSNotFound ? [NSNotFound, NSNotFound] : [range.location, range.location + range.length]
            }
        }
    }
}
