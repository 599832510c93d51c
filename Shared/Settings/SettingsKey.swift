import Kernel

/// One declared key of the configuration file: `section.name`.
package struct SettingsKey: Sendable, Hashable {
    /// The kind of a key's value.
    package enum Kind: Sendable, Hashable {
        case string
        case integer(ClosedRange<Int>)
        case boolean
        /// A number with a unit: `250ms`, `30s`, `5m`, `2h`, `1d`.
        case duration
        case list
        /// One of the given words.
        case choice([String])
        /// A value that is never shown. The key `NAME_file` may name a file that contains it.
        case secret

        /// The kind as named in the reference and in error messages.
        package var text: String {
            switch self {
            case .string: "text"
            case .integer(let range): "whole number from \(range.lowerBound) to \(range.upperBound)"
            case .boolean: "true or false"
            case .duration: "duration such as 250ms, 30s, 5m, 2h, 1d"
            case .list: "list of texts"
            case .choice(let words): "one of " + words.joined(separator: ", ")
            case .secret: "secret text"
            }
        }
    }

    package let name: String
    package let kind: Kind
    /// The value if neither file nor environment has one, written as in the environment; nil for no default.
    package let fallback: String?
    package let isRequired: Bool
    package let documentation: String

    package init(_ name: String, _ kind: Kind, default fallback: String?, required: Bool = false, _ documentation: String) {
        self.name = name
        self.kind = kind
        self.fallback = fallback
        self.isRequired = required
        self.documentation = documentation
    }

    /// A text; nil unless given.
    package static func string(_ name: String, default fallback: String?, _ documentation: String) -> SettingsKey {
        SettingsKey(name, .string, default: fallback, documentation)
    }
    /// A text that the file or the environment must contain.
    package static func required(_ name: String, _ documentation: String) -> SettingsKey {
        SettingsKey(name, .string, default: nil, required: true, documentation)
    }
    /// A whole number in `range`.
    package static func integer(
        _ name: String, default fallback: Int, in range: ClosedRange<Int> = 0...Int(Int32.max), _ documentation: String
    ) -> SettingsKey {
        SettingsKey(name, .integer(range), default: String(fallback), documentation)
    }
    /// `true` or `false`.
    package static func boolean(_ name: String, default fallback: Bool, _ documentation: String) -> SettingsKey {
        SettingsKey(name, .boolean, default: String(fallback), documentation)
    }
    /// `fallback` as in the file: `30s`.
    package static func duration(_ name: String, default fallback: String, _ documentation: String) -> SettingsKey {
        SettingsKey(name, .duration, default: fallback, documentation)
    }
    /// A sequence of texts in the file, separated by commas in the environment.
    package static func list(_ name: String, default fallback: [String], _ documentation: String) -> SettingsKey {
        SettingsKey(name, .list, default: fallback.joined(separator: ","), documentation)
    }
    /// One of `words`.
    package static func choice(
        _ name: String, _ words: [String], default fallback: String, _ documentation: String
    ) -> SettingsKey {
        SettingsKey(name, .choice(words), default: fallback, documentation)
    }
    /// A value that is never shown. The key `NAME_file` may name a file that contains it.
    package static func secret(_ name: String, required: Bool, _ documentation: String) -> SettingsKey {
        SettingsKey(name, .secret, default: nil, required: required, documentation)
    }
}

/// The keys that one executable reads, by section.
package struct SettingsSchema: Sendable {
    /// A section with the keys declared for it.
    package struct Section: Sendable {
        package var keys: [SettingsKey]
        /// Whether all keys of the section are declared here, so that any other one is an error.
        package var isComplete: Bool
    }

    package private(set) var sections: [String: Section]

    private init(_ sections: [String: Section]) { self.sections = sections }

    /// A section with all its keys.
    package static func section(_ name: String, _ keys: [SettingsKey]) -> SettingsSchema {
        SettingsSchema([name: Section(keys: keys, isComplete: true)])
    }

    /// Some keys of a section that another executable declares completely.
    package static func borrowing(_ name: String, _ keys: [SettingsKey]) -> SettingsSchema {
        SettingsSchema([name: Section(keys: keys, isComplete: false)])
    }

    /// The keys of both; a section is complete if it is complete in one of them.
    package static func + (left: SettingsSchema, right: SettingsSchema) -> SettingsSchema {
        var all = left
        for (name, section) in right.sections {
            if var known = all.sections[name] {
                known.keys += section.keys.filter { key in !known.keys.contains { $0.name == key.name } }
                known.isComplete = known.isComplete || section.isComplete
                all.sections[name] = known
            } else {
                all.sections[name] = section
            }
        }
        return all
    }

    /// The schema without a section, for executables that do not use it.
    package func without(_ section: String) -> SettingsSchema {
        SettingsSchema(sections.filter { $0.key != section })
    }

    func key(_ path: String) -> SettingsKey? {
        guard let dot = path.firstIndex(of: ".") else { return nil }
        let name = path[path.index(after: dot)...]
        return sections[String(path[..<dot])]?.keys.first { $0.name == name }
    }

    /// The environment variable that overrides a key: `WOLKE_NETWORK_OVN_NB` for `network.ovn_nb`.
    package static func environmentName(section: String, key: String) -> String {
        "WOLKE_" + section.uppercased() + "_" + key.uppercased()
    }
}
