package import JSON
package import Kernel

/// One access rule of an application credential: a request that its tokens may make.
package struct AccessRule: Sendable, Hashable {
    /// The service's type in the catalog: `compute`.
    package let service: String
    package let method: String
    /// Segments; `*` and `{name}` stand for one, `**` for any number.
    package let path: String

    package init(service: String, method: String, path: String) {
        self.service = service
        self.method = method
        self.path = path
    }

    /// A stored rule; nil if the value is not a valid rule.
    package init?(_ json: JSONValue) {
        guard let service = json["service"]?.stringValue, let method = json["method"]?.stringValue,
            let path = json["path"]?.stringValue
        else { return nil }
        self.init(service: service, method: method.uppercased(), path: path)
    }

    /// Whether this rule allows every request that `other` allows. A conservative comparison: it may return false although
    /// the answer is yes, but never the reverse.
    package func covers(_ other: AccessRule) -> Bool {
        guard service == other.service, method == other.method else { return false }
        let mine = path.split(separator: "/")
        let theirs = other.path.split(separator: "/")
        // Whether the part of this pattern so far covers the first n segments of the other one.
        var covered = [true] + Array(repeating: false, count: theirs.count)
        for part in mine {
            var next = Array(repeating: false, count: theirs.count + 1)
            for count in 0...theirs.count {
                if part == "**" {
                    next[count] = covered[count] || (count > 0 && next[count - 1])
                } else if count > 0, covered[count - 1] {
                    next[count] = AccessRule.segment(part, covers: theirs[count - 1])
                }
            }
            covered = next
        }
        return covered[theirs.count]
    }

    private static func segment(_ mine: Substring, covers theirs: Substring) -> Bool {
        if theirs == "**" { return false }
        return mine == "*" || mine.hasPrefix("{") || mine == theirs
    }
}

/// Upper limits of an application credential that is created with another one.
package struct CredentialLimits: Sendable {
    package let expiresAt: Timestamp?
    /// Nil or empty to allow every request.
    package let accessRules: [AccessRule]?

    package init(expiresAt: Timestamp?, accessRules: [AccessRule]?) {
        self.expiresAt = expiresAt
        self.accessRules = accessRules
    }

    /// Expiry of the new credential: as requested, or that of its creator.
    ///
    /// - Throws: 403 if that is later than the creator's own expiry.
    package func expiry(asked: Timestamp?) throws -> Timestamp? {
        guard let expiresAt else { return asked }
        guard let asked else { return expiresAt }
        guard asked <= expiresAt else {
            throw ResourceError.forbidden(
                """
                Invalid value for expires_at: \(asked.iso8601Microseconds). It must not be later than \
                \(expiresAt.iso8601Microseconds), when the application credential that makes it expires.
                """
            )
        }
        return asked
    }

    /// - Throws: 403 naming the first rule that allows more than the creator's rules.
    package func check(_ asked: [AccessRule]) throws {
        guard let own = accessRules, !own.isEmpty else { return }
        guard let wider = asked.first(where: { rule in !own.contains { $0.covers(rule) } }) else { return }
        throw ResourceError.forbidden(
            """
            Invalid access rule \(wider.method) \(wider.path) of \(wider.service): the application credential that \
            makes it has no access rule that allows as much.
            """
        )
    }
}
