/// A quota, declared once by the service that keeps it. From it follow the service's settings, its answers about limits, the
/// ledger of what is used (`quota_usages`), the inspection of that ledger (I4) and its repair.
package struct QuotaDeclaration: Sendable {
    /// What the numbers of the limit and of the use mean.
    package enum Unit: String, Sendable {
        case items = ""
        case bytes = "Bytes"
        case mebibytes = "MiB"
        case gibibytes = "GiB"
    }

    /// Whose use the ledger adds up.
    package enum Owner: Sendable {
        case project
        /// The limit is that of the project in which the user acts.
        case user
    }

    package enum Use: Sendable {
        /// The ledger has the sum for each owner. The SQL counts it again from the service's own rows: it selects `owner`, the id of the
        /// project or the user, and `amount`, once for each owner that uses any.
        case counted(per: Owner, String)
        /// The limit holds for each single thing, such as the metadata of one server; there is nothing to add up.
        case each
        /// Clients may read and set the limit, but this cloud has nothing that it could limit.
        case none

        /// Of projects.
        package static func counted(_ sql: String) -> Use { .counted(per: .project, sql) }
    }

    /// Names in `GET /limits`.
    package struct Absolute: Sendable {
        package let maximum: String
        /// Nil where the answer does not show the use.
        package let used: String?

        package init(_ maximum: String, used: String? = nil) {
            self.maximum = maximum
            self.used = used
        }
    }

    /// The service's section of the settings: `block_storage`.
    package let section: String
    /// The name in the service's API: `cores`.
    package let name: String
    /// The limit of projects for which neither a setting nor an operator has another one; −1 means none.
    package let preset: Int
    package let unit: Unit
    /// What is limited, without the unit: `memory that a project may have`.
    package let words: String
    package let use: Use
    /// The key in the section of the settings.
    package let setting: String
    /// Nil where `GET /limits` does not name it.
    package let absolute: Absolute?
    /// The last minor microversion in which clients see it; nil for all.
    package let lastMinor: Int?

    package init(
        _ section: String, _ name: String, default preset: Int, unit: Unit = .items, _ words: String, setting: String? = nil,
        absolute: Absolute? = nil, lastMinor: Int? = nil, _ use: Use
    ) {
        self.section = section
        self.name = name
        self.preset = preset
        self.unit = unit
        self.words = words
        self.use = use
        self.setting = setting ?? "quota_" + name
        self.absolute = absolute
        self.lastMinor = lastMinor
    }

    /// The name in the tables of limits and use: `compute:cores`.
    package var resource: String { section + ":" + name }

    /// Who owns the use, as the ledger names it; nil where there is no ledger.
    ///
    /// - Parameter id: of the project, or of the user.
    package func ledgerOwner(_ id: String) -> String? {
        guard case .counted(let owner, _) = use else { return nil }
        return owner == .user ? QuotaDeclaration.userPrefix + id : id
    }

    /// Counts the use from the rows: selects `project_id`, the owner as the ledger names it, and `amount`. Nil where there is no ledger.
    package var counting: String? {
        guard case .counted(let owner, let sql) = use else { return nil }
        let prefix = owner == .user ? "'\(QuotaDeclaration.userPrefix)' || " : ""
        return "SELECT \(prefix)c.owner AS project_id, c.amount FROM (\(sql)) c"
    }

    private static let userPrefix = "user:"
}
