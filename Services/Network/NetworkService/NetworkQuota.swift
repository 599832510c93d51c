import Kernel
import Settings
import WebAPI

/// What a project may have where nothing is set for it; operators change it in the section `network`.
enum NetworkQuota {
    private static let presets: [(name: String, limit: Int, words: String)] = [
        ("network", 100, "Networks"), ("subnet", 100, "Subnets"), ("port", 500, "Ports"), ("router", 10, "Routers"),
        ("floatingip", 50, "Floating IPs"), ("security_group", 10, "Security groups"),
        ("security_group_rule", 100, "Rules of security groups"),
    ]

    /// Names in the API.
    static let names = presets.map(\.name).sorted()

    static let keys: [SettingsKey] = presets.map {
        .integer(
            "quota_\($0.name)", default: $0.limit, in: -1...Int(Int32.max), "\($0.words) that a project may have; -1 means no limit.")
    }

    static func make(_ settings: Settings) -> Quota { make { settings.integer("network.quota_\($0)") } }

    /// - Parameter limit: the operator's limit by name; nil for the preset one.
    static func make(_ limit: (String) -> Int? = { _ in nil }) -> Quota {
        Quota(
            defaults: Dictionary(uniqueKeysWithValues: presets.map { ("network:\($0.name)", limit($0.name) ?? $0.limit) })
        ) { resource, _, _, _ in NetworkFault.overQuota([resource]) }
    }
}
