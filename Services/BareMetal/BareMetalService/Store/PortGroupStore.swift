import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// Network interfaces of a node that are bonded.
struct PortGroup: Sendable {
    let id: UUID128
    let nodeID: UUID128
    /// Whether its ports can also be used individually, outside of the bond.
    let supportsStandalonePorts: Bool
    /// What clients can change.
    let document: JSONObject
}

/// The statements about port groups.
enum PortGroupStore {
    /// A port group by its id or name.
    static func find(_ connection: Connection, _ ident: String, isLocked: Bool = false) throws -> PortGroup? {
        let condition: SQL = UUID128(ident).map { "id = \($0)" } ?? "name = \(ident)"
        return try connection.query(
            """
            SELECT id, node_id, standalone_ports_supported, json_build_object('address', address, 'extra', extra, 'mode', mode,
                'name', name, 'properties', properties, 'standalone_ports_supported', standalone_ports_supported) AS document
            FROM bare_metal_portgroups WHERE \(condition) \(raw: isLocked ? "FOR UPDATE" : "")
            """
        ).first.map {
            PortGroup(
                id: try $0.uuid("id"), nodeID: try $0.uuid("node_id"),
                supportsStandalonePorts: try $0.bool("standalone_ports_supported"), document: try $0.object("document"))
        }
    }

    /// Whether a column has the id of the group that a filter names, by its id or name.
    static func isGroup(_ column: String, _ ident: String) -> SQL {
        UUID128(ident).map { "\(raw: column) = \($0)" }
            ?? "\(raw: column) = (SELECT g.id FROM bare_metal_portgroups g WHERE g.name = \(ident))"
    }

    struct Draft: Sendable {
        let id: UUID128
        let nodeID: UUID128
        let changes: Changes
    }

    static func insert(_ connection: Connection, _ draft: Authorized<Draft>, at now: Timestamp) throws {
        let group = try draft.value(for: "baremetal:portgroup:create")
        var changes = group.changes
        changes.set("id", group.id)
        changes.set("node_id", group.nodeID)
        do {
            try connection.execute(changes.insertion("bare_metal_portgroups", at: now, isUpdated: false))
        } catch let error as DatabaseError {
            throw refusal(error) ?? error
        }
    }

    static func update(_ connection: Connection, _ group: Authorized<PortGroup>, _ changes: Changes, at now: Timestamp) throws {
        let id = try group.value(for: "baremetal:portgroup:update").id
        do {
            try changes.apply(connection, "bare_metal_portgroups", id, at: now)
        } catch let error as DatabaseError {
            throw refusal(error) ?? error
        }
    }

    private static func refusal(_ error: DatabaseError) -> ResourceError? {
        switch error.constraint {
        case "bare_metal_portgroups_address_key": .conflict("A portgroup with this MAC address already exists.")
        case "bare_metal_portgroups_name_key": .conflict("A portgroup with this name already exists.")
        case "bare_metal_portgroups_pkey": .conflict("A portgroup with this UUID already exists.")
        default: nil
        }
    }

    static func delete(_ connection: Connection, _ group: Authorized<PortGroup>) throws {
        let id = try group.value(for: "baremetal:portgroup:delete").id
        do {
            try connection.execute("DELETE FROM bare_metal_portgroups WHERE id = \(id)")
        } catch let error as DatabaseError where error.constraint == "bare_metal_ports_portgroup_id_fkey" {
            throw ResourceError.badRequest("Portgroup \(id) is not empty: it has ports.")
        }
    }

    /// Whether a port of the group boots from the network standalone, which only groups with standalone ports allow.
    static func hasBootingPort(_ connection: Connection, _ id: UUID128) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM bare_metal_ports WHERE portgroup_id = \(id) AND pxe_enabled LIMIT 1").isEmpty
    }
}
