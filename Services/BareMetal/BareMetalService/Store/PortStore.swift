import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// A network interface of a node.
struct NodePort: Sendable {
    let id: UUID128
    let nodeID: UUID128
    /// What clients can change.
    let document: JSONObject
}

/// The statements about ports.
enum PortStore {
    static func port(_ connection: Connection, _ id: UUID128, isLocked: Bool = false) throws -> NodePort? {
        try connection.query(
            """
            SELECT id, node_id, json_build_object('address', address, 'extra', extra, 'local_link_connection', local_link_connection,
                'pxe_enabled', pxe_enabled, 'physical_network', physical_network, 'portgroup_uuid', portgroup_id, 'name', name) AS document
            FROM bare_metal_ports WHERE id = \(id) \(raw: isLocked ? "FOR UPDATE" : "")
            """
        ).first.map { NodePort(id: try $0.uuid("id"), nodeID: try $0.uuid("node_id"), document: try $0.object("document")) }
    }

    /// The MAC addresses of a node's ports.
    static func addresses(_ connection: Connection, of node: UUID128) throws -> [String] {
        try connection.query("SELECT address FROM bare_metal_ports WHERE node_id = \(node) ORDER BY created_at, id").map {
            try $0.string("address")
        }
    }

    struct Draft: Sendable {
        let id: UUID128
        let nodeID: UUID128
        let address: String
        let changes: Changes
    }

    static func insert(_ connection: Connection, _ draft: Authorized<Draft>, at now: Timestamp) throws {
        let port = try draft.value(for: "baremetal:port:create")
        var changes = port.changes
        changes.set("id", port.id)
        changes.set("node_id", port.nodeID)
        changes.set("address", port.address)
        do {
            try connection.execute(changes.insertion("bare_metal_ports", at: now, isUpdated: false))
        } catch let error as DatabaseError {
            throw refusal(error) ?? error
        }
    }

    static func update(_ connection: Connection, _ port: Authorized<NodePort>, _ changes: Changes, at now: Timestamp) throws {
        let id = try port.value(for: "baremetal:port:update").id
        do {
            try changes.apply(connection, "bare_metal_ports", id, at: now)
        } catch let error as DatabaseError {
            throw refusal(error) ?? error
        }
    }

    private static func refusal(_ error: DatabaseError) -> ResourceError? {
        switch error.constraint {
        case "bare_metal_ports_address_key": .conflict("A port with this MAC address already exists.")
        case "bare_metal_ports_name_key": .conflict("A port with this name already exists.")
        case "bare_metal_ports_pkey": .conflict("A port with this UUID already exists.")
        default: nil
        }
    }

    static func delete(_ connection: Connection, _ port: Authorized<NodePort>) throws {
        let id = try port.value(for: "baremetal:port:delete").id
        try connection.execute("DELETE FROM bare_metal_ports WHERE id = \(id)")
    }
}
