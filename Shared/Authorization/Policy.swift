import Kernel

/// A rule in oslo.policy's language: `role:admin or (role:member and project_id:%(project_id)s)`.
///
/// Checks: `role:NAME`, `rule:NAME`, `ATTRIBUTE:%(target)s` or `ATTRIBUTE:literal` with the caller's attribute on the
/// left (`user_id`, `project_id`, `domain_id`, `system_scope`), `'literal':%(target)s`, `@`, `!`, `and`, `or`, `not`,
/// parentheses. The empty rule always holds.
package indirect enum PolicyExpression: Sendable, Hashable {
    case always
    case never
    case role(String)
    case rule(String)
    case match(String, String)
    case not(PolicyExpression)
    case all([PolicyExpression])
    case any([PolicyExpression])

    /// - Throws: 400 that quotes the rule and describes the error in it.
    package static func parse(_ text: String) throws -> PolicyExpression {
        var parser = PolicyParser(text)
        return try parser.parse()
    }
}

private struct PolicyParser {
    private let text: String
    private var tokens: [String]
    private var index = 0

    init(_ text: String) {
        self.text = text
        tokens = PolicyParser.split(text)
    }

    /// Parentheses are separate tokens except inside `%(name)s`.
    private static func split(_ text: String) -> [String] {
        var tokens: [String] = []
        var word = ""
        var previous: Character = " "
        var inSubstitution = false
        for character in text {
            if character == "(", previous == "%" { inSubstitution = true }
            if character.isWhitespace || (!inSubstitution && (character == "(" || character == ")")) {
                if !word.isEmpty { tokens.append(word) }
                word = ""
                if !character.isWhitespace { tokens.append(String(character)) }
            } else {
                word.append(character)
                if character == ")" { inSubstitution = false }
            }
            previous = character
        }
        if !word.isEmpty { tokens.append(word) }
        return tokens
    }

    private func failure(_ reason: String) -> ResourceError {
        .badRequest("policy rule \"\(text)\": \(reason)")
    }

    mutating func parse() throws -> PolicyExpression {
        if tokens.isEmpty { return .always }
        let expression = try any()
        guard index == tokens.count else { throw failure("unexpected \"\(tokens[index])\"") }
        return expression
    }

    private mutating func accept(_ token: String) -> Bool {
        guard index < tokens.count, tokens[index].lowercased() == token else { return false }
        index += 1
        return true
    }

    private mutating func any() throws -> PolicyExpression {
        var terms = [try all()]
        while accept("or") { terms.append(try all()) }
        return terms.count == 1 ? terms[0] : .any(terms)
    }

    private mutating func all() throws -> PolicyExpression {
        var terms = [try negated()]
        while accept("and") { terms.append(try negated()) }
        return terms.count == 1 ? terms[0] : .all(terms)
    }

    private mutating func negated() throws -> PolicyExpression {
        if accept("not") { return .not(try negated()) }
        if accept("(") {
            let inner = try any()
            guard accept(")") else { throw failure("a parenthesis is not closed") }
            return inner
        }
        guard index < tokens.count else { throw failure("the rule ends unexpectedly") }
        let token = tokens[index]
        index += 1
        return try check(token)
    }

    private func check(_ token: String) throws -> PolicyExpression {
        if token == "@" { return .always }
        if token == "!" { return .never }
        guard let colon = token.firstIndex(of: ":") else { throw failure("\"\(token)\" is not a valid check") }
        let kind = String(token[..<colon])
        let value = String(token[token.index(after: colon)...])
        guard !kind.isEmpty, !value.isEmpty else { throw failure("\"\(token)\" is not a valid check") }
        switch kind {
        case "role": return .role(value)
        case "rule": return .rule(value)
        case "is_admin": return value.lowercased() == "true" || value == "1" ? .role("admin") : .not(.role("admin"))
        default: return .match(kind, value)
        }
    }
}

/// The target of a decision: attributes that rules refer to, such as `project_id` or `target.user.domain_id`.
package struct PolicyTarget: Sendable, Hashable, ExpressibleByDictionaryLiteral {
    package var attributes: [String: String]

    package init(dictionaryLiteral elements: (String, String?)...) {
        attributes = [:]
        for (name, value) in elements { attributes[name] = value }
    }

    /// The target of an action on a resource that a project owns.
    package static func project(_ id: String?) -> PolicyTarget { ["project_id": id, "tenant_id": id] }
    package static let none: PolicyTarget = [:]
}

/// A value together with the policy decision that the caller may do `action` to it. Only `Policy` creates one, so a
/// mutation that requires it cannot be called without a decision. The mutation states its action with `value(for:)` before
/// it writes.
package struct Authorized<Value: Sendable>: Sendable {
    package let value: Value
    package let caller: Caller
    package let action: String

    fileprivate init(value: Value, caller: Caller, action: String) {
        self.value = value
        self.caller = caller
        self.action = action
    }

    /// The value, for a mutation that performs one of these actions. A decision about another action, such as reading the value,
    /// is refused.
    ///
    /// - Throws: 500 naming both actions, because this is a bug in the handler and not an error of the request.
    @discardableResult
    package func value(for actions: String...) throws -> Value {
        guard actions.contains(action) else {
            throw ResourceError.internalError(
                "a decision about \(action) was passed to a mutation for \(actions.joined(separator: " or "))")
        }
        return value
    }
}

extension Sequence {
    /// The values, for a mutation of all of them that performs `action`.
    ///
    /// - Throws: as `Authorized.value(for:)`, if one of the decisions is about another action.
    @discardableResult
    package func values<Value>(for action: String) throws -> [Value] where Element == Authorized<Value> {
        try map { try $0.value(for: action) }
    }
}

/// The rules of a service: defaults from its declarations, overridden by the operator's policy file.
package struct Policy: Sendable {
    private let rules: [String: PolicyExpression]

    /// Rules that are defined in every service.
    package static let common: [String: String] = [
        "admin_required": "role:admin",
        "system_admin": "rule:admin_required",
        "service_role": "role:service",
        "admin_or_service": "rule:admin_required or role:service",
        "project_reader": "role:reader and project_id:%(project_id)s",
        "project_member": "role:member and project_id:%(project_id)s",
        "project_manager": "role:manager and project_id:%(project_id)s",
        "project_reader_or_admin": "rule:admin_required or rule:project_reader",
        "project_member_or_admin": "rule:admin_required or rule:project_member",
        "project_manager_or_admin": "rule:admin_required or rule:project_manager",
        "owner": "user_id:%(user_id)s",
        "admin_or_owner": "rule:admin_required or rule:owner",
        "authenticated": "@",
    ]

    /// - Throws: 400 for a rule that cannot be parsed or that refers to an unknown rule.
    package init(defaults: [String: String], overrides: [String: String] = [:]) throws {
        var texts = Policy.common
        texts.merge(defaults) { $1 }
        // Names with a colon are actions; other names are helper rules of the operator.
        for name in overrides.keys where name.contains(":") && texts[name] == nil {
            throw ResourceError.badRequest("policy file: unknown action \"\(name)\"")
        }
        texts.merge(overrides) { $1 }
        rules = try texts.mapValues { try PolicyExpression.parse($0) }
        var named: Set<String> = []
        for (name, expression) in rules { try check(expression, in: name, &named) }
        // Refuse unknown actions: if a name is misspelt, the default rule would silently stay in force.
        for name in overrides.keys.sorted() where defaults[name] == nil && Policy.common[name] == nil && !named.contains(name) {
            throw ResourceError.badRequest("policy file: \"\(name)\" is not an action of this service, and no rule refers to it")
        }
    }

    /// - Parameter named: collects the rules to which the expression refers.
    private func check(_ expression: PolicyExpression, in name: String, _ named: inout Set<String>) throws {
        switch expression {
        case .rule(let other):
            guard rules[other] != nil else {
                throw ResourceError.badRequest("policy rule \"\(name)\" refers to the unknown rule \"\(other)\"")
            }
            if other != name { named.insert(other) }
        case .not(let inner): try check(inner, in: name, &named)
        case .all(let terms), .any(let terms): for term in terms { try check(term, in: name, &named) }
        case .always, .never, .role, .match: break
        }
    }

    /// The caller as this service sees it: the rule `admin_required` decides who is an administrator.
    package func judged(_ caller: Caller) -> Caller {
        var caller = caller
        caller.isAdmin = allows("admin_required", caller, .none)
        return caller
    }

    /// Whether `caller` may do `action`; an unknown action is denied.
    package func allows(_ action: String, _ caller: Caller, _ target: PolicyTarget) -> Bool {
        guard let rule = rules[action] else { return false }
        return evaluate(rule, caller, target, depth: 0)
    }

    /// - Throws: 403 that names the action.
    package func authorize<Value>(
        _ action: String, _ caller: Caller, _ value: Value, target: PolicyTarget
    ) throws -> Authorized<Value> {
        guard allows(action, caller, target) else {
            throw ResourceError.forbidden("Policy doesn't allow \(action) to be performed.")
        }
        return Authorized(value: value, caller: caller, action: action)
    }

    private func evaluate(_ rule: PolicyExpression, _ caller: Caller, _ target: PolicyTarget, depth: Int) -> Bool {
        guard depth < 64 else { return false }
        switch rule {
        case .always: return true
        case .never: return false
        case .role(let name): return caller.has(role: name)
        case .rule(let name):
            guard let inner = rules[name] else { return false }
            return evaluate(inner, caller, target, depth: depth + 1)
        case .not(let inner): return !evaluate(inner, caller, target, depth: depth + 1)
        case .all(let terms): return terms.allSatisfy { evaluate($0, caller, target, depth: depth + 1) }
        case .any(let terms): return terms.contains { evaluate($0, caller, target, depth: depth + 1) }
        case .match(let left, let right): return matches(left, right, caller, target)
        }
    }

    private func matches(_ left: String, _ right: String, _ caller: Caller, _ target: PolicyTarget) -> Bool {
        let wanted: String?
        if right.hasPrefix("%("), right.hasSuffix(")s") {
            wanted = target.attributes[String(right.dropFirst(2).dropLast(2))]
        } else {
            wanted = right
        }
        guard let wanted else { return false }
        let held: String?
        switch left {
        case "user_id": held = caller.userID
        case "project_id", "tenant_id": held = caller.projectID
        case "domain_id": held = caller.domainID
        case "user_domain_id": held = caller.userDomainID
        case "project_domain_id": held = caller.projectDomainID
        case "system_scope": held = caller.isSystemScoped ? "all" : nil
        case "None": return wanted.isEmpty
        default:
            guard left.hasPrefix("'"), left.hasSuffix("'"), left.count >= 2 else { return false }
            held = String(left.dropFirst().dropLast())
        }
        return held == wanted
    }
}
