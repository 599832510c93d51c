import Kernel
import Yams

/// Collects values and problems from file, environment and defaults.
struct SettingsReader {
    let schema: SettingsSchema
    let file: String
    private(set) var values: [String: SettingsValue] = [:]
    private(set) var problems: [String] = []

    init(schema: SettingsSchema, file: String) {
        self.schema = schema
        self.file = file
    }

    mutating func readFile(_ text: String) {
        let root: Node?
        do {
            root = try Yams.compose(yaml: text)
        } catch {
            problems.append("\(file): not valid YAML: \(error)")
            return
        }
        guard let root, root.null == nil else { return }
        guard let mapping = root.mapping else {
            problems.append("\(file): expected sections, such as \"database:\", at the top")
            return
        }
        for (nameNode, content) in mapping {
            guard let name = nameNode.string else {
                problems.append("\(file): a section's name must be a text")
                continue
            }
            readSection(name, content)
        }
    }

    private mutating func readSection(_ name: String, _ content: Node) {
        guard let section = schema.sections[name] else {
            if !SettingsSchema.sectionNames.contains(name) {
                problems.append("\(file): unknown section \"\(name)\"" + Nearest.hint(name, SettingsSchema.sectionNames))
            }
            return
        }
        if content.null != nil { return }
        guard let mapping = content.mapping else {
            problems.append("\(file): section \"\(name)\" must hold keys")
            return
        }
        for (keyNode, value) in mapping {
            guard let key = keyNode.string else {
                problems.append("\(file): a key in section \"\(name)\" must be a text")
                continue
            }
            if value.null != nil, section.keys.contains(where: { $0.name == key }) { continue }
            read(section: name, key: key, declared: section, source: "\(file): \(name).\(key)", unknown: "key") {
                kind in SettingsReader.raw(value, kind)
            }
        }
    }

    mutating func readEnvironment(_ environment: [String: String]) {
        // Longest section names first, so that WOLKE_BLOCK_STORAGE_X is not attributed to a section "block".
        let names = schema.sections.keys.sorted { $0.count > $1.count }
        for variable in environment.keys.sorted() where variable.hasPrefix("WOLKE_") {
            guard let value = environment[variable],
                let name = names.first(where: { variable.hasPrefix("WOLKE_" + $0.uppercased() + "_") }),
                let section = schema.sections[name]
            else { continue }
            let key = variable.dropFirst("WOLKE_".count + name.count + 1).lowercased()
            read(section: name, key: key, declared: section, source: "environment variable \(variable)", unknown: "key") {
                _ in .success(value)
            }
        }
    }

    private mutating func read(
        section: String, key: String, declared: SettingsSchema.Section, source: String, unknown: String,
        raw: (SettingsKey.Kind) -> Result<String, SettingsError>
    ) {
        if let known = declared.keys.first(where: { $0.name == key }) {
            store(section: section, key: known, source: source, raw: raw(known.kind))
        } else if key.hasSuffix("_file"), let known = declared.keys.first(where: { $0.kind == .secret && $0.name + "_file" == key }) {
            let content = raw(.string).flatMap { path in
                do throws(SettingsError) {
                    return .success(try TextFile.read(path).trimmingNewlines)
                } catch {
                    return .failure(error)
                }
            }
            store(section: section, key: known, source: source, raw: content)
        } else if declared.isComplete {
            let names = declared.keys.map { "\(section).\($0.name)" }
            problems.append("\(source): unknown \(unknown) \"\(section).\(key)\"" + Nearest.hint("\(section).\(key)", names))
        }
    }

    private mutating func store(
        section: String, key: SettingsKey, source: String, raw: Result<String, SettingsError>
    ) {
        switch raw {
        case .failure(let error):
            problems += error.problems.map { "\(source): \($0)" }
        case .success(let text):
            if let value = SettingsReader.parse(text, key.kind) {
                values["\(section).\(key.name)"] = value
            } else {
                let shown = key.kind == .secret ? "the value" : "\"\(text)\""
                problems.append("\(source): \(shown) is not a \(key.kind.text)")
            }
        }
    }

    mutating func fillAndCheck() {
        for name in schema.sections.keys.sorted() {
            for key in schema.sections[name]?.keys ?? [] where values["\(name).\(key.name)"] == nil {
                if let fallback = key.fallback {
                    store(section: name, key: key, source: "default of \(name).\(key.name)", raw: .success(fallback))
                } else if key.isRequired {
                    let variable = SettingsSchema.environmentName(section: name, key: key.name)
                    problems.append("\(file): \(name).\(key.name) is required (or \(variable) in the environment): \(key.documentation)")
                }
            }
        }
    }

    /// The value as it would be written in the environment.
    private static func raw(_ node: Node, _ kind: SettingsKey.Kind) -> Result<String, SettingsError> {
        if kind == .list, let sequence = node.sequence {
            let texts = sequence.compactMap { $0.scalar?.string }
            guard texts.count == sequence.count else { return .failure(SettingsError(["must be a list of texts"])) }
            guard !texts.contains(where: { $0.contains(",") }) else {
                return .failure(SettingsError(["a text in a list must not contain a comma"]))
            }
            return .success(texts.joined(separator: ","))
        }
        guard let scalar = node.scalar else { return .failure(SettingsError(["must be a \(kind.text)"])) }
        return .success(scalar.string)
    }

    static func parse(_ text: String, _ kind: SettingsKey.Kind) -> SettingsValue? {
        switch kind {
        case .string:
            return .text(text)
        case .secret:
            return text.isEmpty ? nil : .secret(Secret(text))
        case .integer(let range):
            guard let number = Int(text), range.contains(number) else { return nil }
            return .integer(number)
        case .boolean:
            switch text.lowercased() {
            case "true", "yes", "on": return .boolean(true)
            case "false", "no", "off": return .boolean(false)
            default: return nil
            }
        case .duration:
            return DurationText.parse(text).map { .duration($0) }
        case .list:
            return .list(text.split(separator: ",").map { $0.trimmingSpaces }.filter { !$0.isEmpty })
        case .choice(let words):
            return words.contains(text) ? .text(text) : nil
        }
    }
}

/// Durations in configuration files.
package enum DurationText {
    /// Parses `250ms`, `30s`, `5m`, `2h`, `1d`; nil for anything else, for negative values and above 10 000 days.
    package static func parse(_ text: String) -> Duration? {
        let digits = text.prefix { $0.isNumber && $0.isASCII }
        guard let count = Int64(digits) else { return nil }
        let milliseconds: Int64
        switch text.dropFirst(digits.count) {
        case "ms": milliseconds = 1
        case "s": milliseconds = 1000
        case "m": milliseconds = 60_000
        case "h": milliseconds = 3_600_000
        case "d": milliseconds = 86_400_000
        default: return nil
        }
        let (total, overflow) = count.multipliedReportingOverflow(by: milliseconds)
        guard !overflow, total <= 10_000 * 86_400_000 else { return nil }
        return .milliseconds(total)
    }
}

/// Suggests the known name closest to a misspelt one.
package enum Nearest {
    /// `; did you mean "x"?` if one of the names is similar, otherwise the list of all names.
    package static func hint(_ word: String, _ names: [String]) -> String {
        let best = names.map { (name: $0, distance: distance(Array(word.utf8), Array($0.utf8))) }
            .min { $0.distance < $1.distance }
        if let best, best.distance <= max(2, word.utf8.count / 3) { return "; did you mean \"\(best.name)\"?" }
        return "; known: " + names.sorted().joined(separator: ", ")
    }

    /// Levenshtein distance.
    static func distance(_ left: [UInt8], _ right: [UInt8]) -> Int {
        var previous = Array(0...right.count)
        for (row, byte) in left.enumerated() {
            var current = [row + 1]
            for (column, other) in right.enumerated() {
                current.append(min(previous[column] + (byte == other ? 0 : 1), previous[column + 1] + 1, current[column] + 1))
            }
            previous = current
        }
        return previous[right.count]
    }
}

extension StringProtocol {
    var trimmingSpaces: String {
        var rest = self[...]
        while rest.first == " " || rest.first == "\t" { rest = rest.dropFirst() }
        while rest.last == " " || rest.last == "\t" { rest = rest.dropLast() }
        return String(rest)
    }

    var trimmingNewlines: String {
        var rest = self[...]
        while let last = rest.last, last.isNewline { rest = rest.dropLast() }
        return String(rest)
    }
}
