import Yams

/// Files that keys of the configuration refer to.
package enum SettingsFile {
    /// Reads a small text file.
    ///
    /// - Throws: `SettingsError` with the reason if the file cannot be read.
    package static func text(_ path: String) throws(SettingsError) -> String { try TextFile.read(path) }

    /// Reads a YAML mapping of names to texts, such as a policy file.
    ///
    /// - Throws: `SettingsError` naming the file and any entry that is not a text.
    package static func texts(_ path: String) throws(SettingsError) -> [String: String] {
        let root: Node?
        do { root = try Yams.compose(yaml: TextFile.read(path)) } catch let error as SettingsError { throw error } catch {
            throw SettingsError(["\(path): not valid YAML: \(error)"])
        }
        guard let root, root.null == nil else { return [:] }
        guard let mapping = root.mapping else { throw SettingsError(["\(path): expected a mapping of names to texts"]) }
        var texts: [String: String] = [:]
        for (name, value) in mapping {
            guard let name = name.string, let text = value.string else {
                throw SettingsError(["\(path): \(name.string ?? "an entry") must be a text"])
            }
            texts[name] = text
        }
        return texts
    }
}
