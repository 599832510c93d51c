/// A quota, declared once by the service that enforces it. The service's settings, its responses about limits, the ledger of
/// usage (`quota_usages`), the inspection of the ledger (I4) and its repair are derived from it.
package struct QuotaDeclaration: Sendable {
    /// The unit of the limit and of the usage.
    package enum Unit: String, Sendable {
        case items = ""
        case bytes = "Bytes"
        case mebibytes = "MiB"
        case gibibytes = "GiB"
    }

    /// The owner for whom the ledger adds up usage.
    package enum Owner: Sendable {
        case project
        /// The limit is that of the project in which the user acts.
        case user
    }

    package enum Use: Sendable {
        /// The ledger has the sum for each owner. The SQL recounts it from the service's own rows: it selects `owner` (the id of
        /// the project or user) and `amount`, once for each owner with any usage.
        case counted(per: Owner, String)
        /// The limit applies to each single resource, such as the metadata of one server; there is no sum.
        case each
        /// Clients can read and set the limit, but this cloud has no resource that it limits.
        case none

        /// Usage of projects.
        package static func counted(_ sql: String) -> Use { .counted(per: .project, sql) }
    }

    /// Names in `GET /limits`.
    package struct Absolute: Sendable {
        package let maximum: String
        /// Nil if the response does not show the usage.
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
    /// The limit for projects without a limit of their own, unless a setting or an operator has changed it; −1 means no limit.
    package let preset: Int
    package let unit: Unit
    /// The limited resource, without the unit: `memory that a project may have`.
    package let words: String
    package let use: Use
    /// The key in the settings section.
    package let setting: String
    /// Nil if `GET /limits` does not show the quota.
    package let absolute: Absolute?
    /// The last minor microversion that shows the quota; nil for no end.
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

    /// The name in the tables of limits and usage: `compute:cores`.
    package var resource: String { section + ":" + name }

    /// The owner of the usage as the ledger names it; nil without a ledger.
    ///
    /// - Parameter id: the id of the project or user.
    package func ledgerOwner(_ id: String) -> String? {
        guard case .counted(let owner, _) = use else { return nil }
        return owner == .user ? QuotaDeclaration.userPrefix + id : id
    }

    /// Counts the usage from the rows: selects `project_id` (the owner as the ledger names it) and `amount`. Nil without a
    /// ledger.
    package var counting: String? {
        guard case .counted(let owner, let sql) = use else { return nil }
        let prefix = owner == .user ? "'\(QuotaDeclaration.userPrefix)' || " : ""
        return "SELECT \(prefix)c.owner AS project_id, c.amount FROM (\(sql)) c"
    }

    private static let userPrefix = "user:"
}
