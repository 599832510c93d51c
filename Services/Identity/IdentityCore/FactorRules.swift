package import JSON
import Kernel

/// The requirements of a user's options `multi_factor_auth_rules` and `multi_factor_auth_enabled`.
///
/// Evaluated as in Keystone: all methods of one rule must be satisfied. Unknown methods are ignored, and a rule of unknown
/// methods only is ignored as a whole; such rules can only have been stored before they were refused.
package struct FactorRules: Sendable {
    /// The methods that a sign-on can use.
    package static let methods = ["password", "token", "totp", "application_credential"]

    /// Each rule is a set of methods that is sufficient together; empty if no second factor is required.
    package let rules: [[String]]

    /// - Parameter options: the user's `options` as stored.
    package init(options: JSONValue?) {
        guard options?["multi_factor_auth_enabled"]?.boolValue != false,
            let stored = options?["multi_factor_auth_rules"]?.arrayValue
        else {
            rules = []
            return
        }
        rules = stored.compactMap { rule in
            let known = FactorRules.methods.filter { method in
                rule.arrayValue?.contains { $0.stringValue == method } ?? false
            }
            return known.isEmpty ? nil : known
        }
    }

    /// Whether a sign-on with these methods is sufficient.
    package func areMet(by methods: [String]) -> Bool {
        rules.isEmpty || rules.contains { $0.allSatisfy(methods.contains) }
    }

    /// The rules that contain these methods, so that the client knows which methods are missing.
    package func begun(with methods: [String]) -> [[String]] {
        rules.filter { $0.contains(where: methods.contains) }
    }

    /// - Throws: 400 for a rule in a request body that is empty or names a method that does not exist.
    package static func check(_ options: JSONValue?) throws {
        for (index, rule) in (options?["multi_factor_auth_rules"]?.arrayValue ?? []).enumerated() {
            let path = "user.options.multi_factor_auth_rules[\(index)]"
            guard let names = rule.arrayValue, !names.isEmpty else {
                throw ResourceError.badRequest("Invalid input for field/attribute \(path). Value: []. It must name at least one method.")
            }
            for name in names where !methods.contains(name.stringValue ?? "") {
                throw ResourceError.badRequest(
                    """
                    Invalid input for field/attribute \(path). Value: \(name.stringValue?.prefix(64) ?? ""). It \
                    must be one of \(methods.joined(separator: ", ")).
                    """
                )
            }
            guard Set(names.compactMap(\.stringValue)).count == names.count else {
                throw ResourceError.badRequest("Invalid input for field/attribute \(path). It must name each method once.")
            }
        }
    }
}
