package import Kernel

/// The query of a list of providers or candidates.
package struct ProviderQuery: Sendable {
    package var resources: [ResourceAmount] = []
    /// At least one trait of each group is required.
    package var required: [[String]] = []
    package var forbidden: [String] = []
    /// Traits that the root of the tree must or must not have.
    package var rootRequired: [String] = []
    package var rootForbidden: [String] = []
    /// Membership in at least one aggregate of each group is required.
    package var memberOf: [[UUID128]] = []
    package var notMemberOf: [UUID128] = []
    package var inTree: UUID128?

    package init() {}

    /// The syntax that the request's version allows in values.
    package struct Grammar: Sendable {
        package var forbiddenTraits: Bool
        package var anyTraits: Bool
        package var repeatedMemberOf: Bool
        package var forbiddenAggregates: Bool

        package init(forbiddenTraits: Bool, anyTraits: Bool, repeatedMemberOf: Bool, forbiddenAggregates: Bool) {
            self.forbiddenTraits = forbiddenTraits
            self.anyTraits = anyTraits
            self.repeatedMemberOf = repeatedMemberOf
            self.forbiddenAggregates = forbiddenAggregates
        }
    }

    /// A 400 with the code that Placement's clients expect.
    package static func bad(_ message: String) -> ResourceError { .badRequest(message, type: "placement.query.bad_value") }

    /// The 400 for a parameter that the list does not have in this version.
    package static func unexpected(_ name: String) -> ResourceError {
        bad("Invalid query string parameters: Additional properties are not allowed ('\(name.prefix(64))' was unexpected)")
    }

    /// The 400 for a repeated parameter.
    package static func repeated(_ name: String) -> ResourceError {
        .badRequest("The query parameter '\(name.prefix(64))' is given more than once.", type: "placement.query.duplicate_key")
    }

    /// The names of all required and forbidden traits.
    package var traitNames: [String] { required.flatMap { $0 } + forbidden + rootRequired + rootForbidden }

    // MARK: values

    /// `VCPU:2,MEMORY_MB:512`
    ///
    /// - Throws: 400 with the reason.
    package static func resources(_ text: String) throws -> [ResourceAmount] {
        var amounts: [ResourceAmount] = []
        for item in text.split(separator: ",", omittingEmptySubsequences: false) {
            let parts = item.split(separator: ":", omittingEmptySubsequences: false)
            guard parts.count == 2, !parts[0].isEmpty else {
                throw bad(
                    """
                    Badly formed resources parameter. Expected resources query string parameter in form: \
                    ?resources=VCPU:2,MEMORY_MB:1024. Got: \"\(item.prefix(100))\".
                    """
                )
            }
            guard let amount = Int(parts[1]), (1...Int(Int32.max)).contains(amount) else {
                throw bad("Requested resource \(parts[0].prefix(100)) expected positive integer amount. Got: \(parts[1].prefix(100)).")
            }
            guard !amounts.contains(where: { $0.resourceClass == parts[0] }) else {
                throw bad("The resource \(parts[0]) occurs twice in the resources parameter.")
            }
            amounts.append(ResourceAmount(String(parts[0]), amount))
        }
        return amounts
    }

    /// `HW_CPU_X86_AVX,!CUSTOM_SLOW` or `in:A,B`
    package mutating func add(required text: String, _ grammar: Grammar) throws {
        if text.hasPrefix("in:") {
            guard grammar.anyTraits else {
                throw ProviderQuery.bad("The format 'in:' of required is not supported since version 1.39 only.")
            }
            let names = text.dropFirst(3).split(separator: ",", omittingEmptySubsequences: false).map(String.init)
            guard !names.contains(where: { $0.isEmpty || $0.hasPrefix("!") }) else {
                throw ProviderQuery.bad(
                    "Invalid query string parameters: 'in:' must be followed by names of traits. Got: \(text.prefix(100))")
            }
            required.append(names)
            return
        }
        for name in text.split(separator: ",", omittingEmptySubsequences: false).map(String.init) {
            if name.hasPrefix("!"), grammar.forbiddenTraits, name.count > 1 {
                forbidden.append(String(name.dropFirst()))
            } else {
                guard !name.isEmpty, !name.hasPrefix("!") else {
                    throw ProviderQuery.bad(
                        """
                        Invalid query string parameters: Expected 'required' parameter value of the form: \
                        HW_CPU_X86_VMX,\(grammar.forbiddenTraits ? "!" : "")CUSTOM_MAGIC. Got: \(text.prefix(100))
                        """
                    )
                }
                required.append([name])
            }
        }
        let conflict = Set(required.filter { $0.count == 1 }.map { $0[0] }).intersection(forbidden).sorted()
        guard conflict.isEmpty else {
            throw ProviderQuery.bad(
                "Conflicting required and forbidden traits found in the parameter 'required': \(conflict.joined(separator: ", "))")
        }
    }

    /// `root_required=HW_CPU_X86_AVX,!CUSTOM_SLOW`
    package mutating func set(rootRequired text: String) throws {
        var query = ProviderQuery()
        try query.add(
            required: text,
            Grammar(forbiddenTraits: true, anyTraits: false, repeatedMemberOf: false, forbiddenAggregates: false))
        rootRequired = query.required.flatMap { $0 }
        rootForbidden = query.forbidden
    }

    /// `UUID`, `in:UUID,UUID`, and with a leading `!` for the opposite.
    package mutating func add(memberOf text: String, _ grammar: Grammar) throws {
        var rest = text[...]
        var negated = false
        if rest.hasPrefix("!") {
            guard grammar.forbiddenAggregates else {
                throw ProviderQuery.bad(
                    "Forbidden member_of parameters are not supported in the requested version. Got: \(text.prefix(100))")
            }
            negated = true
            rest = rest.dropFirst()
        }
        let several = rest.hasPrefix("in:")
        if several { rest = rest.dropFirst(3) }
        let ids = try rest.split(separator: ",", omittingEmptySubsequences: false).map { item in
            guard let id = UUID128(item) else {
                throw ProviderQuery.bad("Expected 'member_of' parameter to contain valid UUID(s). Got: \(text.prefix(100))")
            }
            return id
        }
        guard several || ids.count == 1 else {
            throw ProviderQuery.bad("Multiple values for 'member_of' must be prefixed with the 'in:' keyword. Got: \(text.prefix(100))")
        }
        if negated { notMemberOf += ids } else { memberOf.append(ids) }
    }

    /// - Throws: 400 if the text is not a UUID.
    package mutating func set(inTree text: String) throws {
        guard let id = UUID128(text) else {
            throw ProviderQuery.bad("Expected 'in_tree' parameter to be a format of uuid. Got: \(text.prefix(100))")
        }
        inTree = id
    }
}
