import Authorization
import Database
import IdentityCore
import JSON
import Kernel
import Synchronization

/// The body that describes a token.
enum TokenDocument {
    /// Writes `{"token": {…}}`.
    static func write(
        _ connection: Connection, _ caller: Caller, withCatalog: Bool, into writer: inout JSONWriter
    ) throws {
        let payload = caller.token
        let user = try connection.query("SELECT password_expires_at FROM users WHERE id = \(caller.userID)").first
        let expiry = try user?.optionalTimestamp("password_expires_at")
        try writer.object {
            try $0.objectField("token") { token in
                token.field("methods", payload.methods)
                token.objectField("user") { user in
                    user.objectField("domain") { reference(&$0, caller.userDomainID, caller.userDomainName) }
                    reference(&user, caller.userID, caller.userName)
                    user.field("password_expires_at", expiry?.iso8601NoZone)
                }
                token.field("audit_ids", payload.auditIDs)
                token.field("expires_at", payload.expiresAt.iso8601Microseconds)
                token.field("issued_at", payload.issuedAt.iso8601Microseconds)
                writeScope(caller, into: &token)
                if caller.scope != .unscoped { writeRoles(caller, into: &token) }
                try writeCredential(connection, caller, into: &token)
                if withCatalog, caller.scope != .unscoped {
                    token.name("catalog")
                    try Catalog.write(connection, projectID: caller.projectID, userID: caller.userID, into: &token)
                }
            }
        }
        func reference(_ writer: inout JSONWriter, _ id: String, _ name: String?) {
            writer.field("id", id)
            writer.field("name", name)
        }
    }

    private static func writeScope(_ caller: Caller, into token: inout JSONWriter) {
        switch caller.scope {
        case .unscoped: break
        case .project(let id):
            token.objectField("project") { project in
                project.objectField("domain") {
                    $0.field("id", caller.projectDomainID)
                    $0.field("name", caller.projectDomainName)
                }
                project.field("id", id.text)
                project.field("name", caller.projectName)
            }
            token.field("is_domain", false)
        case .domain(let id):
            token.objectField("domain") {
                $0.field("id", id.text)
                $0.field("name", caller.domainName)
            }
        case .system: token.objectField("system") { $0.field("all", true) }
        }
    }

    private static func writeRoles(_ caller: Caller, into token: inout JSONWriter) {
        token.arrayField("roles") { roles in
            for role in caller.roles {
                roles.object {
                    $0.field("id", role.id)
                    $0.field("name", role.name)
                }
            }
        }
    }

    private static func writeCredential(
        _ connection: Connection, _ caller: Caller, into token: inout JSONWriter
    ) throws {
        guard let id = caller.token.applicationCredentialID,
            let row = try connection.query("SELECT name, unrestricted FROM application_credentials WHERE id = \(id)").first
        else { return }
        let name = try row.string("name")
        let unrestricted = try row.bool("unrestricted")
        token.objectField("application_credential") {
            $0.field("id", id)
            $0.field("name", name)
            $0.field("restricted", !unrestricted)
            if let rules = caller.accessRules, !rules.isNull { $0.field("access_rules", rules) }
        }
    }
}

/// The catalog for a token's owner.
enum Catalog {
    /// Writes the catalog's array.
    static func write(
        _ connection: Connection, projectID: String?, userID: String, into writer: inout JSONWriter
    ) throws {
        let rows = try connection.query(
            """
            SELECT s.id AS service_id, s.type, s.name, e.id, e.interface, e.url, e.region_id
            FROM catalog_services s LEFT JOIN catalog_endpoints e ON e.service_id = s.id AND e.enabled
            WHERE s.enabled ORDER BY s.type, s.id, e.region_id, e.interface DESC, e.id
            """)
        var index = 0
        try writer.array { services in
            while index < rows.count {
                let service = try rows[index].string("service_id")
                let type = try rows[index].string("type")
                let name = try rows[index].string("name")
                try services.object { entry in
                    entry.field("type", type)
                    entry.field("name", name)
                    entry.field("id", service)
                    try entry.arrayField("endpoints") { endpoints in
                        while index < rows.count, try rows[index].string("service_id") == service {
                            try writeEndpoint(rows[index], projectID, userID, into: &endpoints)
                            index += 1
                        }
                    }
                }
            }
        }
    }

    private static func writeEndpoint(
        _ row: Row, _ projectID: String?, _ userID: String, into endpoints: inout JSONWriter
    ) throws {
        guard let id = try row.optionalString("id"),
            let url = CatalogURL.expand(try row.string("url"), projectID: projectID, userID: userID)
        else { return }
        let interface = try row.string("interface")
        let region = try row.optionalString("region_id")
        endpoints.object {
            $0.field("id", id)
            $0.field("interface", interface)
            $0.field("region_id", region)
            $0.field("region", region)
            $0.field("url", url)
        }
    }
}

/// Token descriptions as they were written, good while nothing in Identity has changed since.
final class TokenDocumentCache: Sendable {
    private struct Entry {
        let epoch: Int64
        let bytes: [UInt8]
    }

    /// About 8 KiB each.
    private static let entriesMax = 1000
    private let entries = Mutex<[String: Entry]>([:])

    func find(_ token: String, epoch: Int64) -> [UInt8]? {
        entries.withLock { entries in
            guard let entry = entries[token], entry.epoch == epoch else { return nil }
            return entry.bytes
        }
    }

    func keep(_ token: String, epoch: Int64, _ bytes: [UInt8]) {
        entries.withLock { entries in
            if entries.count >= TokenDocumentCache.entriesMax { entries.removeAll() }
            entries[token] = Entry(epoch: epoch, bytes: bytes)
        }
    }
}
