import Kernel

/// A key of a flavor's extra specs or an image's properties that Nova interprets: its allowed values and their effect in
/// this cloud. Keys that are not declared are free metadata, except in the namespaces of `GuestKey.namespaces`.
package struct GuestKey: Sendable {
    package enum Place: String, Sendable { case flavor, image }

    /// The allowed values of a key, as Nova validates them.
    package enum Values: Sendable {
        case text
        /// A boolean in any of its spellings.
        case flag
        case number(ClosedRange<Int>)
        case words([String])
    }

    package enum Effect: Sendable {
        /// As in Nova.
        case implemented
        /// Servers are only accepted with these values.
        case limited(to: [String], lacking: String)
        /// Servers with the key are refused.
        case refused(String)
        /// The key has no effect and needs none, for this reason.
        case metadata(String)
    }

    package let place: Place
    /// A trailing `*` matches the rest of the name.
    package let name: String
    package let values: Values
    package let effect: Effect

    init(_ place: Place, _ name: String, _ values: Values, _ effect: Effect) {
        self.place = place
        self.name = name
        self.values = values
        self.effect = effect
    }

    /// Prefixes of extra specs that belong to Nova; an undeclared key with one of them is refused as misspelt.
    package static let namespaces = [
        "hw", "hw_rng", "hw_video", "os", "quota", "accel", "pci_passthrough", "capabilities", "aggregate_instance_extra_specs", "powervm",
        "vmware",
    ]

    /// All keys that have a meaning.
    package static let all = flavorKeys + imageKeys

    private static let exact: [Place: [String: GuestKey]] = Dictionary(grouping: all.filter { !$0.name.hasSuffix("*") }, by: \.place)
        .mapValues { Dictionary(uniqueKeysWithValues: $0.map { ($0.name, $0) }) }
    private static let prefixes = all.filter { $0.name.hasSuffix("*") }

    /// The declaration of a key; nil for free metadata.
    package static func find(_ place: Place, _ name: String) -> GuestKey? {
        exact[place]?[name]
            ?? prefixes.first { $0.place == place && name.hasPrefix($0.name.dropLast()) && (place == .image || name.contains(":")) }
    }

    // MARK: checks

    /// An extra spec as an operator sets it.
    ///
    /// - Throws: 400 naming key, value and rule: for an invalid value, and for an unknown key in Nova's namespaces.
    package static func checkSpec(_ name: String, _ value: String) throws {
        if let key = find(.flavor, name) { return try key.check(value, of: "extra spec '\(name.prefix(64))'", name: name) }
        let namespace = String(name.prefix { $0 != ":" })
        guard name.contains(":"), namespaces.contains(namespace) else { return }
        throw ResourceError.badRequest(
            """
            Validation failed; extra spec '\(name.prefix(64))' does not exist in the namespace '\(namespace)'. \
            Names of other namespaces are free.
            """
        )
    }

    /// Refuses a server whose flavor or image requires something that this cloud does not support.
    ///
    /// - Parameters:
    ///   - specs: the flavor's extra specs.
    ///   - properties: the image's properties.
    /// - Throws: 400 naming key, value and the missing feature.
    package static func check(specs: [String: String], properties: [String: String]) throws {
        for (place, texts) in [(Place.flavor, specs), (.image, properties)] {
            for (name, value) in texts.sorted(by: { $0.key < $1.key }) {
                guard let key = find(place, name) else { continue }
                let what = place == .flavor ? "extra spec '\(name.prefix(64))' of the flavor" : "property '\(name.prefix(64))' of the image"
                try key.check(value, of: what, name: name)
                try key.checkEffect(value, of: what)
            }
        }
    }

    private func isValid(_ value: String) -> Bool {
        switch values {
        case .text: true
        case .flag: NovaBoolean.read(value) != nil
        case .number(let range): Int(value).map(range.contains) ?? false
        case .words(let words): words.contains(value.lowercased())
        }
    }

    private func check(_ value: String, of what: String, name: String) throws {
        guard !isValid(value) else { return }
        let rule =
            switch values {
            case .text: "text"
            case .flag: "a boolean"
            case .number(let range):
                range.upperBound == Int.max
                    ? "a whole number from \(range.lowerBound) on" : "a whole number from \(range.lowerBound) to \(range.upperBound)"
            case .words(let words): "one of " + words.joined(separator: ", ")
            }
        throw ResourceError.badRequest("Invalid value '\(value.prefix(64))' for \(what). It must be \(rule).")
    }

    /// Whether this value is supported, regardless of other keys.
    func serves(_ value: String) -> Bool { isValid(value) && lacking(value) == nil }

    /// The feature that this cloud lacks for the value; nil if the value is supported.
    private func lacking(_ value: String) -> String? {
        switch effect {
        case .implemented, .metadata: return nil
        case .refused(let text): return text
        case .limited(let served, let text):
            let normal = if case .flag = values { NovaBoolean.read(value) == true ? "true" : "false" } else { value.lowercased() }
            return served.contains { $0.hasSuffix("*") ? normal.hasPrefix($0.dropLast()) : $0 == normal } ? nil : text
        }
    }

    private func checkEffect(_ value: String, of what: String) throws {
        guard let lacking = lacking(value) else { return }
        throw ResourceError.badRequest("The \(what) requires '\(value.prefix(64))', which this cloud does not support: \(lacking).")
    }

    // MARK: documentation

    /// The rows of docs/guest-keys.md.
    package static var reference: String {
        func text(_ key: GuestKey) -> String {
            switch key.effect {
            case .implemented: "as in Nova"
            case .limited(let served, let lacking):
                "only " + served.map { $0.isEmpty ? "empty" : "`\($0)`" }.joined(separator: ", ") + "; otherwise refused: \(lacking)"
            case .refused(let lacking): "refused: \(lacking)"
            case .metadata(let why): "no effect: \(why)"
            }
        }
        func values(_ key: GuestKey) -> String {
            switch key.values {
            case .text: "text"
            case .flag: "boolean"
            case .number(let range):
                range.upperBound == Int.max ? "\(range.lowerBound) and more" : "\(range.lowerBound) to \(range.upperBound)"
            case .words(let words): words.map { "`\($0)`" }.joined(separator: ", ")
            }
        }
        var lines: [String] = []
        for (title, keys) in [("Extra specs of flavors", flavorKeys), ("Properties of images", imageKeys)] {
            lines += ["## \(title)", "", "| key | values | effect |", "| --- | --- | --- |"]
            lines += keys.map { "| `\($0.name)` | \(values($0)) | \(text($0)) |" } + [""]
        }
        return lines.joined(separator: "\n")
    }
}

/// Booleans as Nova reads them in extra specs and properties.
package enum NovaBoolean {
    /// Nil for text that is not a boolean.
    package static func read(_ text: String) -> Bool? {
        switch text.lowercased() {
        case "1", "t", "true", "on", "y", "yes": true
        case "0", "f", "false", "off", "n", "no": false
        default: nil
        }
    }
}
