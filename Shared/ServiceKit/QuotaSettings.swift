package import Contracts
package import Settings

extension QuotaDeclaration {
    /// The settings key for the limit; nil if the quota limits nothing.
    private var settingsKey: SettingsKey? {
        if case .none = use { return nil }
        let text = (unit == .items ? "" : unit.rawValue + " of ") + words + "; -1 means no limit."
        return .integer(setting, default: preset, in: -1...Int(Int32.max), text)
    }

    /// The settings keys of all limits.
    package static func settingsKeys(_ quotas: [QuotaDeclaration]) -> [SettingsKey] { quotas.compactMap(\.settingsKey) }

    /// The limits in the settings, by name.
    package static func limits(_ quotas: [QuotaDeclaration], in settings: Settings) -> [String: Int] {
        let set = quotas.filter { $0.settingsKey != nil }
        return Dictionary(uniqueKeysWithValues: set.map { ($0.name, settings.integer("\($0.section).\($0.setting)")) })
    }
}
