package import Database
import Kernel

/// A regular expression from a client, checked so that PostgreSQL matches it in time linear in the text.
///
/// PostgreSQL matches expressions without back-references with a finite automaton. Constructs that could still take
/// exponential time or memory are refused: back-references and look-around (matched by backtracking), bounds that multiply
/// the automaton's states, and deep nesting. Plain texts, with or without anchors, become simple comparisons.
package struct SearchPattern: Sendable, Hashable {
    /// Longest pattern, in characters: the maximum length of the searched texts.
    package static let lengthMax = Limits.nameLengthMax
    /// Maximum number of states of the automaton, counted as the length of the pattern with its bounds expanded.
    package static let sizeMax = 1000
    /// Maximum nesting depth of groups.
    package static let depthMax = 8
    /// Largest bound of a repetition (PostgreSQL's own limit is 255).
    package static let repeatMax = 255

    private let text: String
    /// The characters to find, if the pattern contains no operator.
    private let literal: String?
    private let anchored: (start: Bool, end: Bool)

    /// - Parameter name: the parameter's name, for the error.
    /// - Throws: 400 naming the parameter and the unsupported part.
    package init(_ text: String, parameter name: String) throws {
        var parser = Parser(Array(text.unicodeScalars), name: name)
        try parser.check()
        self.text = text
        literal = parser.literal
        anchored = (parser.startsWithAnchor, parser.endsWithAnchor)
    }

    package static func == (left: SearchPattern, right: SearchPattern) -> Bool { left.text == right.text }
    package func hash(into hasher: inout Hasher) { hasher.combine(text) }

    /// The condition that the text `expression` matches.
    package func condition(_ expression: String) -> SQL {
        guard let literal else { return "\(raw: expression) ~ \(text)" }
        switch (anchored.start, anchored.end) {
        case (true, true): return "\(raw: expression) = \(literal)"
        case (true, false): return "starts_with(\(raw: expression), \(literal))"
        case (false, true): return "right(\(raw: expression), \(literal.unicodeScalars.count)) = \(literal)"
        case (false, false): return "strpos(\(raw: expression), \(literal)) > 0"
        }
    }
}

/// Parses the accepted subset of PostgreSQL's advanced regular expressions.
private struct Parser {
    private let scalars: [Unicode.Scalar]
    private let name: String
    private var place = 0
    private var depth = 0
    private var plain = ""
    private var isPlain = true
    private(set) var startsWithAnchor = false
    private(set) var endsWithAnchor = false

    init(_ scalars: [Unicode.Scalar], name: String) {
        self.scalars = scalars
        self.name = name
    }

    /// The text without its anchors, if it contains nothing else.
    var literal: String? { isPlain ? plain : nil }

    mutating func check() throws {
        guard scalars.count <= SearchPattern.lengthMax else {
            throw refused("It may have at most \(SearchPattern.lengthMax) characters.")
        }
        // PostgreSQL's own prefix for other syntaxes.
        if scalars.starts(with: "***".unicodeScalars) { throw refused("A pattern cannot begin with ***.") }
        let size = try alternatives()
        guard place == scalars.count else { throw refused("A closing parenthesis has no opening one.") }
        guard size <= SearchPattern.sizeMax else { throw tooLarge }
    }

    // MARK: grammar

    /// Branches separated by `|`, up to a closing parenthesis or the end.
    ///
    /// - Returns: their total size.
    private mutating func alternatives() throws -> Int {
        var size = try branch()
        while peek == "|" {
            isPlain = false
            place += 1
            size += try branch() + 1
            guard size <= SearchPattern.sizeMax else { throw tooLarge }
        }
        return size
    }

    private mutating func branch() throws -> Int {
        var size = 0
        while let scalar = peek, scalar != "|", scalar != ")" {
            let (piece, repeats) = try atom(scalar)
            size += try quantified(piece, repeats: repeats)
            guard size <= SearchPattern.sizeMax else { throw tooLarge }
        }
        return size
    }

    /// - Returns: its size, and whether it may be repeated.
    private mutating func atom(_ scalar: Unicode.Scalar) throws -> (size: Int, repeats: Bool) {
        place += 1
        switch scalar {
        case "(": return (try group(), true)
        case "[":
            isPlain = false
            try bracket()
            return (1, true)
        case "\\": return try escape()
        case "^":
            if place == 1 { startsWithAnchor = true } else { isPlain = false }
            return (1, false)
        case "$":
            if place == scalars.count { endsWithAnchor = true } else { isPlain = false }
            return (1, false)
        case ".":
            isPlain = false
            return (1, true)
        case "*", "+", "?": throw refused("The operator \(scalar) has nothing before it to repeat.")
        case "{" where peek.map(isDigit) ?? false: throw refused("The bound {…} has nothing before it to repeat.")
        default:
            plain.unicodeScalars.append(scalar)
            return (1, true)
        }
    }

    private mutating func group() throws -> Int {
        isPlain = false
        depth += 1
        guard depth <= SearchPattern.depthMax else {
            throw refused("Groups may be nested \(SearchPattern.depthMax) deep.")
        }
        if peek == "?" {
            guard place + 1 < scalars.count, scalars[place + 1] == ":" else {
                throw refused("Look-around and options, (?…), are not accepted; (?:…) is.")
            }
            place += 2
        }
        let size = try alternatives()
        guard peek == ")" else { throw refused("A parenthesis is not closed.") }
        place += 1
        depth -= 1
        return size + 2
    }

    private mutating func escape() throws -> (size: Int, repeats: Bool) {
        guard let scalar = peek else { throw refused("It ends in a backslash.") }
        place += 1
        if ("1"..."9").contains(scalar) { throw refused("Back-references, \\\(scalar), are not accepted.") }
        let isLetter = ("a"..."z").contains(scalar) || ("A"..."Z").contains(scalar)
        if "dwsDWS".unicodeScalars.contains(scalar) {
            isPlain = false
            return (1, true)
        }
        if "AmMyYZ".unicodeScalars.contains(scalar) {
            isPlain = false
            return (1, false)
        }
        guard !isLetter, scalar != "0", scalar != "_" else { throw refused("The escape \\\(scalar) is not accepted.") }
        plain.unicodeScalars.append(scalar)
        return (1, true)
    }

    /// `[…]` up to its end: characters, ranges, and classes such as `[:alpha:]`.
    private mutating func bracket() throws {
        if peek == "^" { place += 1 }
        var isFirst = true
        while let scalar = peek {
            place += 1
            if scalar == "]", !isFirst { return }
            isFirst = false
            if scalar == "[", peek == ":" { try characterClass(); continue }
            if scalar == "[", peek == "." || peek == "=" { throw refused("Collating elements in brackets are not accepted.") }
            if scalar == "\\" {
                guard let escaped = peek, !("0"..."9").contains(escaped), !("A"..."Z").contains(escaped),
                    !("a"..."z").contains(escaped) || "dws".unicodeScalars.contains(escaped)
                else { throw refused("A bracket expression has an escape that is not accepted.") }
                place += 1
                if "dws".unicodeScalars.contains(escaped) { try refuseRange() }
                continue
            }
            guard peek == "-", place + 1 < scalars.count, scalars[place + 1] != "]" else { continue }
            let upper = scalars[place + 1]
            guard upper != "[", upper != "\\", scalar.value <= upper.value else {
                throw refused("A range in brackets must go from a lower character to a higher one.")
            }
            place += 2
            try refuseRange()
        }
        throw refused("A bracket is not closed.")
    }

    private mutating func characterClass() throws {
        let names = ["alpha", "upper", "lower", "digit", "xdigit", "alnum", "print", "punct", "graph", "space", "cntrl", "blank"]
        for word in names where scalars[(place + 1)...].starts(with: (word + ":]").unicodeScalars) {
            place += word.unicodeScalars.count + 3
            return try refuseRange()
        }
        throw refused("A class in brackets must be one of \(names.joined(separator: ", ")).")
    }

    /// Only a single character can begin a range.
    private func refuseRange() throws {
        guard peek == "-", place + 1 < scalars.count, scalars[place + 1] != "]" else { return }
        throw refused("A range in brackets must begin and end with a character.")
    }

    private mutating func quantified(_ size: Int, repeats: Bool) throws -> Int {
        guard let scalar = peek else { return size }
        var result = size
        switch scalar {
        case "*", "+", "?":
            place += 1
            result += 1
        case "{" where place + 1 < scalars.count && isDigit(scalars[place + 1]):
            place += 1
            result = try size * max(1, bound())
        default: return size
        }
        guard repeats else { throw refused("An anchor cannot be repeated.") }
        isPlain = false
        guard result <= SearchPattern.sizeMax else { throw tooLarge }
        // The non-greedy forms.
        if peek == "?" { place += 1 }
        if let next = peek, "*+?".unicodeScalars.contains(next) || next == "{" && place + 1 < scalars.count && isDigit(scalars[place + 1]) {
            throw refused("A repetition cannot be repeated again without parentheses.")
        }
        return result
    }

    /// `n}`, `n,}` or `n,m}`.
    ///
    /// - Returns: how often the atom is written out.
    private mutating func bound() throws -> Int {
        let low = try number()
        var high = low
        if peek == "," {
            place += 1
            high = peek == "}" ? low + 1 : try number()
        }
        guard peek == "}" else { throw refused("A bound must be {n}, {n,} or {n,m}.") }
        place += 1
        guard low <= high, high <= SearchPattern.repeatMax else {
            throw refused("The bounds of a repetition must rise and be at most \(SearchPattern.repeatMax).")
        }
        return high
    }

    private mutating func number() throws -> Int {
        var value = 0
        var digits = 0
        while let scalar = peek, isDigit(scalar) {
            value = min(value * 10 + Int(scalar.value - 48), 100_000)
            digits += 1
            place += 1
        }
        guard digits > 0 else { throw refused("A bound must be {n}, {n,} or {n,m}.") }
        return value
    }

    // MARK: helpers

    private var peek: Unicode.Scalar? { place < scalars.count ? scalars[place] : nil }

    private func isDigit(_ scalar: Unicode.Scalar) -> Bool { ("0"..."9").contains(scalar) }

    private var tooLarge: ResourceError {
        refused("Its repetitions are too large: written out it may have \(SearchPattern.sizeMax) characters.")
    }

    private func refused(_ rule: String) -> ResourceError {
        let shown = String(String.UnicodeScalarView(scalars.prefix(64)))
        return .badRequest("Invalid value '\(shown)' for the filter '\(name)': it is not a regular expression that is accepted. \(rule)")
    }
}
