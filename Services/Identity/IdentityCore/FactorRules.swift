import JSON
import Kernel

/// What a user's options `multi_factor_auth_rules` and `multi_factor_auth_enabled` ask of a sign-on.
///
/// Evaluated as Keystone does: one rule must be met whole; methods that do not exist are left out of a rule, and a rule
/// that has no others is no rule. Rules with such methods can only have been stored before they were refused.
package struct FactorRules: Sendable {
    /// The methods that a sign-on can use.
    package static let methods = ["password", "token", "totp", "application_credential"]

    /// Each a set of methods that suffices together; empty where there is nothing to ask for.
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

    /// Whether a sign-on with these methods is enough.
    package func areMet(by methods: [String]) -> Bool {
        rules.isEmpty || rules.contains { $0.allSatisfy(methods.contains) }
    }

    /// The rules that these methods are a part of: what the client may go on with.
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
                    "Invalid input for field/attribute \(path). Value: \(name.stringValue?.prefix(64) ?? ""). It must be one of \(methods.joined(separator: ", "))."
                )
            }
            guard Set(names.compactMap(\.stringValue)).count == names.count else {
                throw ResourceError.badRequest("Invalid input for field/attribute \(path). It must name each method once.")
            }
        }
    }
}
