package import JSON
import Kernel

/// The requirements in a volume type's extra specs.
///
/// As in Cinder, a spec without a scope or with the scope `capabilities` is a requirement on the backend; other scopes are
/// specific to a driver. Cinder's scheduler sets a volume whose type no backend satisfies to `error`; here the request is
/// refused at once, because there is only one backend.
package enum TypeRequirements {
    /// Specs that users can see, as in Cinder.
    package static let visibleToUsers = ["RESKEY:availability_zones", "multiattach", "replication_enabled"]

    /// The first capability that `specs` require by `<is> True` and that the storage does not have, as `name='<is> True'`.
    ///
    /// For user-visible capabilities a plain `True` counts too, because in Cinder only backends with the capability match
    /// that value.
    ///
    /// - Parameter capabilities: names of the capabilities that the storage has.
    package static func unmetCapability(_ specs: JSONObject, capabilities: Set<String>) -> String? {
        required(specs).first { !capabilities.contains($0.name) }.map { "\($0.key)='\($0.value)'" }
    }

    /// Whether volumes of a type with these specs can be attached to several servers.
    package static func areMultiattach(_ specs: JSONObject) -> Bool { required(specs).contains { $0.name == multiattach } }

    package static let multiattach = "multiattach"

    /// The capabilities that `specs` require, each with the item that requires it.
    private static func required(_ specs: JSONObject) -> [(name: String, key: String, value: String)] {
        specs.members.compactMap { member in
            guard let name = capability(member.name), let value = member.value.stringValue else { return nil }
            guard requiresTruth(value) || visibleToUsers.contains(name) && isTrue(value.lowercased()) else { return nil }
            return (name, member.name, value)
        }
    }

    /// `volume_backend_name` in `specs`, if it names another backend.
    package static func otherBackend(_ specs: JSONObject, backend: String) -> String? {
        for member in specs.members where capability(member.name) == "volume_backend_name" {
            if let value = member.value.stringValue, value != backend { return value }
        }
        return nil
    }

    private static func capability(_ key: String) -> String? {
        let parts = key.split(separator: ":", maxSplits: 1, omittingEmptySubsequences: false)
        if parts.count == 1 { return key }
        return parts[0] == "capabilities" ? String(parts[1]) : nil
    }

    /// `<is> True`, in any case and spacing.
    private static func requiresTruth(_ value: String) -> Bool {
        let words = value.lowercased().split(separator: " ")
        return words.count == 2 && words[0] == "<is>" && isTrue(words[1])
    }

    private static func isTrue(_ word: some StringProtocol) -> Bool { ["true", "t", "yes", "y", "on", "1"].contains(String(word)) }
}
