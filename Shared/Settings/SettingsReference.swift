/// Renders the reference of all keys as Markdown.
package enum SettingsReference {
    /// One table per section that `schema` declares completely, in the usual order of the file.
    package static func markdown(_ schema: SettingsSchema) -> String {
        SettingsSchema.sectionNames.compactMap { name in
            schema.sections[name].flatMap { $0.isComplete ? table(name, $0.keys) : nil }
        }.joined(separator: "\n")
    }

    private static func table(_ section: String, _ keys: [SettingsKey]) -> String {
        var text = "## \(section)\n\n| key | value | default | environment | meaning |\n| --- | --- | --- | --- | --- |\n"
        for key in keys {
            let fallback =
                key.isRequired ? "*required*" : key.fallback.map { $0.isEmpty ? "(empty)" : "`\($0)`" } ?? "–"
            let variable = SettingsSchema.environmentName(section: section, key: key.name)
            let also = key.kind == .secret ? " `\(key.name)_file` may name a file that contains it." : ""
            let cells = [
                "`\(key.name)`", key.kind.text, fallback, "`\(variable)`", key.documentation + also,
            ].map { $0.replacing("|", with: "\\|") }
            text += "| " + cells.joined(separator: " | ") + " |\n"
        }
        return text
    }
}
