import Authorization
import Kernel

/// The conditions that make a user an operator of the cloud, according to the policy in effect: the rules `admin_required`, `system_admin`
/// and `service_role`, both as in the operator's policy file and as they are by default. The defaults count as well because the other
/// services have policy files of their own.
struct OperatorRoles: Sendable {
    /// Names in lower case of the global roles that a rule requires of operators and that ordinary users do not have.
    let names: [String]
    /// Names in lower case of the global roles that each satisfy `admin_required` on their own.
    let administrators: [String]
    /// Ids of projects whose ordinary users are operators because of a rule: `role:member and project_id:0123…`.
    let projects: [String]
    /// Ids of users who are operators because of a rule: `user_id:0123…`.
    let users: [String]
    /// Ids of domains whose projects are all operators' projects because of a rule: `role:member and project_domain_id:0123…`.
    let projectDomains: [String]
    /// Ids of domains whose users are operators, wherever they have a role, because of a rule: `role:member and user_domain_id:0123…`.
    let userDomains: [String]

    /// Roles that managers of domains assign. If a rule requires one of them together with another condition, only the other condition
    /// makes an operator.
    private static let ordinary: Set<String> = ["manager", "member", "reader"]
    private static let rules = ["admin_required", "system_admin", "service_role"]
    /// Alternatives of a rule.
    private static let alternativesMax = 512

    /// - Parameter overrides: the rules of the operator's policy file.
    /// - Throws: 400 for a rule that cannot be parsed, refers to itself, or has too many alternatives.
    init(overrides: [String: String]) throws {
        let defaults = Policy.common.merging(IdentityAPI.rules) { $1 }
        let inForce = defaults.merging(overrides) { $1 }
        var names: Set<String> = []
        var projects: Set<String> = []
        var users: Set<String> = []
        var (projectDomains, userDomains): (Set<String>, Set<String>) = ([], [])
        for (rules, rule) in [defaults, inForce].flatMap({ rules in OperatorRoles.rules.map { (rules, $0) } }) {
            for alternative in try Alternatives(rules).of(rule) {
                let special = alternative.roles.subtracting(OperatorRoles.ordinary)
                if !special.isEmpty {
                    names.formUnion(special)
                } else if alternative.isWithoutProject {
                    // Ordinary roles on a domain or the system: such tokens have no project.
                    continue
                } else if !alternative.projects.isEmpty {
                    projects.formUnion(alternative.projects)
                } else if !alternative.users.isEmpty {
                    users.formUnion(alternative.users)
                } else if !alternative.projectDomains.isEmpty {
                    projectDomains.formUnion(alternative.projectDomains)
                } else if !alternative.userDomains.isEmpty {
                    userDomains.formUnion(alternative.userDomains)
                } else {
                    names.formUnion(alternative.roles)
                }
            }
        }
        let administrators = try Alternatives(inForce).of("admin_required")
        let alone = administrators.filter { $0.roles.count == 1 && $0 == Alternative(roles: $0.roles) }.flatMap(\.roles)
        self.names = names.sorted()
        self.administrators = Set(alone.isEmpty ? administrators.flatMap(\.roles) : alone).sorted()
        self.projects = projects.sorted()
        self.users = users.sorted()
        self.projectDomains = projectDomains.sorted()
        self.userDomains = userDomains.sorted()
    }

    /// One way to satisfy a rule: all of these roles, in one of these projects, as one of these users, and so on; empty members do not
    /// restrict. Other conditions, which some token can satisfy, are omitted.
    private struct Alternative: Hashable {
        var roles: Set<String> = []
        var projects: Set<String> = []
        var users: Set<String> = []
        var projectDomains: Set<String> = []
        var userDomains: Set<String> = []
        /// Whether only tokens for a domain or the system satisfy it.
        var isWithoutProject = false

        func and(_ other: Alternative) -> Alternative {
            Alternative(
                roles: roles.union(other.roles), projects: projects.union(other.projects), users: users.union(other.users),
                projectDomains: projectDomains.union(other.projectDomains), userDomains: userDomains.union(other.userDomains),
                isWithoutProject: isWithoutProject || other.isWithoutProject)
        }
    }

    /// Expands rules into their alternatives.
    private struct Alternatives {
        private let rules: [String: String]

        init(_ rules: [String: String]) { self.rules = rules }

        func of(_ rule: String) throws -> Set<Alternative> { try expand(.rule(rule), negated: false, rule, depth: 0) }

        private func expand(_ expression: PolicyExpression, negated: Bool, _ name: String, depth: Int) throws -> Set<Alternative> {
            let anything: Set = [Alternative()]
            guard depth < 64 else { throw ResourceError.badRequest("policy rule \"\(name)\" refers to itself, or is nested too deeply") }
            switch expression {
            case .always: return negated ? [] : anything
            case .never: return negated ? anything : []
            case .role(let role): return negated ? anything : [Alternative(roles: [role.lowercased()])]
            case .rule(let other):
                return try expand(PolicyExpression.parse(rules[other] ?? "!"), negated: negated, name, depth: depth + 1)
            case .match(let attribute, let value): return negated ? anything : match(attribute, value)
            case .not(let inner): return try expand(inner, negated: !negated, name, depth: depth + 1)
            case .all(let terms), .any(let terms):
                let parts = try terms.map { try expand($0, negated: negated, name, depth: depth + 1) }
                var isAll = false
                if case .all = expression { isAll = true }
                // The negation of a conjunction is the disjunction of the negations, and the other way round.
                guard isAll != negated else { return parts.reduce(into: []) { $0.formUnion($1) } }
                return try parts.reduce(anything) { sum, part in
                    guard sum.count * part.count <= OperatorRoles.alternativesMax else {
                        throw ResourceError.badRequest(
                            "policy rule \"\(name)\" has more than \(OperatorRoles.alternativesMax) alternatives; write it more simply")
                    }
                    return Set(sum.flatMap { one in part.map { one.and($0) } })
                }
            }
        }

        /// Whether a caller is an administrator is decided without a target, so references to one never match.
        private func match(_ attribute: String, _ value: String) -> Set<Alternative> {
            if value.hasPrefix("%(") { return [] }
            switch attribute {
            case "project_id", "tenant_id": return [Alternative(projects: [value])]
            case "user_id": return [Alternative(users: [value])]
            case "project_domain_id": return [Alternative(projectDomains: [value])]
            case "user_domain_id": return [Alternative(userDomains: [value])]
            case "domain_id", "system_scope": return [Alternative(isWithoutProject: true)]
            default: return [Alternative()]
            }
        }
    }
}
