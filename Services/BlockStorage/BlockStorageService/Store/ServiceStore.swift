import Authorization
import Database
import Kernel

/// The statements about the service's processes as operators see them.
extension BlockStorageStore {
    /// The processes in order, with `is_up` for those that have reported within `lifetime`.
    ///
    /// - Parameters:
    ///   - host: the host, with or without the backend; nil for all.
    ///   - kind: nil for all.
    static func services(
        _ connection: Connection, host: String?, kind: String?, now: SQL, lifetime: Duration
    ) throws -> Rows {
        var conditions: [SQL] = ["true"]
        if let host { conditions.append("(host = \(host) OR split_part(host, '@', 1) = \(host))") }
        if let kind { conditions.append("kind = \(kind)") }
        return try connection.query(
            """
            SELECT host, kind, availability_zone, disabled, disabled_reason, seen_at,
                seen_at > \(now) - \(lifetime)::interval AS is_up
            FROM block_storage_services WHERE \(SQL.joined(conditions, separator: " AND ")) ORDER BY kind, host
            """)
    }

    static func isService(_ connection: Connection, host: String, kind: String) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM block_storage_services WHERE host = \(host) AND kind = \(kind)").isEmpty
    }

    /// - Returns: whether there is such a service.
    static func setDisabled(
        _ connection: Connection, _ decision: Authorized<Void>, host: String, kind: String, _ isDisabled: Bool, reason: String?
    ) throws -> Bool {
        try decision.value(for: "volume_extension:services:update")
        return try connection.execute(
            """
            UPDATE block_storage_services SET disabled = \(isDisabled), disabled_reason = \(reason)
            WHERE host = \(host) AND kind = \(kind)
            """) == 1
    }
}
