import Authorization
import Database
import JSON

/// The statements about the guests of servers.
enum GuestStore {
    /// The password that the guest posted, encrypted for the server's key pair; nil if there is none.
    static func password(_ connection: Connection, of server: String) throws -> String? {
        try connection.query("SELECT guest_password FROM servers WHERE id = \(server)").first?.optionalString("guest_password")
    }

    /// - Returns: whether there was a password.
    static func clearPassword(_ connection: Connection, of decision: Authorized<ServerRecord>) throws -> Bool {
        let id = try decision.value(for: "os_compute_api:os-server-password:clear").id
        return try connection.execute("UPDATE servers SET guest_password = NULL WHERE id = \(id) AND guest_password IS NOT NULL") > 0
    }

    /// The properties of the image that the server was created from.
    static func imageProperties(_ connection: Connection, of server: String) throws -> JSONObject {
        try connection.query("SELECT \(ServerProperties.ofImage) AS properties FROM servers s WHERE s.id = \(server)")
            .first?.object("properties") ?? [:]
    }
}
