import Kernel
import Settings
import WebAPI

/// What a project may have where nothing is set for it; operators change it in the section `compute`.
package enum ComputeQuota {
    private static let presets: [(name: String, limit: Int, words: String)] = [
        ("instances", 10, "Servers that a project may have"), ("cores", 20, "Processors that a project may have"),
        ("ram", 51_200, "MiB of memory that a project may have"), ("server_groups", 10, "Server groups that a project may have"),
        ("server_group_members", 10, "Servers that a server group may have"), ("key_pairs", 100, "Key pairs that a user may have"),
        ("metadata_items", 128, "Metadata items that a server may have"),
        ("injected_files", 5, "Files that a server may be given when it is created (before 2.57)"),
        ("injected_file_content_bytes", 10_240, "Bytes of such a file"), ("injected_file_path_bytes", 255, "Bytes of such a file's path"),
    ]

    /// Limits of the API that count nothing here.
    private static let absent = [
        "floating_ips", "fixed_ips", "security_groups", "security_group_rules",
    ]

    static let keys: [SettingsKey] = presets.map {
        .integer("quota_\($0.name)", default: $0.limit, in: -1...Int(Int32.max), "\($0.words); -1 means no limit.")
    }

    static func make(_ settings: Settings) -> Quota { make { settings.integer("compute.quota_\($0)") } }

    /// - Parameter limit: the operator's limit by name; nil for the preset one.
    package static func make(_ limit: (String) -> Int? = { _ in nil }) -> Quota {
        var defaults = Dictionary(uniqueKeysWithValues: absent.map { ("compute:\($0)", -1) })
        for preset in presets { defaults["compute:\(preset.name)"] = limit(preset.name) ?? preset.limit }
        return Quota(defaults: defaults) { resource, asked, used, limit in
            .forbidden("Quota exceeded for \(resource): Requested \(asked), but already used \(used) of \(limit) \(resource)")
        }
    }
}
