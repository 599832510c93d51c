import Authorization
import BareMetalCore
import Database
import JSON
import Kernel
import WebAPI

/// The statements about config drives: the small disks with the metadata of instances, which are part of requests to deploy. The node's
/// `instance_info` shows a mask instead.
enum ConfigDriveStore {
    static let member = "configdrive"

    /// Stores the config drive of a deployment. A rebuild without a config drive uses the stored one.
    static func keep(_ connection: Connection, _ node: Authorized<Node>, _ drive: NodeSecrets.Sealed) throws {
        let id = try node.value(for: "baremetal:node:set_provision_state").id
        try connection.execute(
            """
            INSERT INTO bare_metal_config_drives (node_id, sealed, key_id)
            VALUES (\(id), decode(\(Hexadecimal.encode(drive.bytes)), 'hex'), \(drive.keyID))
            ON CONFLICT (node_id) DO UPDATE SET sealed = EXCLUDED.sealed, key_id = EXCLUDED.key_id
            """)
        let shown = JSONObject([(member, NodeRules.mask)])
        try connection.execute("UPDATE bare_metal_nodes SET instance_info = instance_info || \(shown)::jsonb WHERE id = \(id)")
    }

    static func find(_ connection: Connection, of node: UUID128) throws -> NodeSecrets.Sealed? {
        try connection.query(
            "SELECT encode(sealed, 'hex') AS sealed, key_id FROM bare_metal_config_drives WHERE node_id = \(node)"
        ).first.map { row in
            guard let bytes = Hexadecimal.decode(try row.string("sealed")) else {
                throw ResourceError.internalError("the config drive of node \(node) is not hexadecimal")
            }
            return NodeSecrets.Sealed(keyID: try row.string("key_id"), bytes: bytes)
        }
    }

    /// Removes the config drive of a node whose `instance_info` does not show one any more.
    static func forgetRemoved(_ connection: Connection, _ node: Authorized<Node>) throws {
        let id = try node.value(for: "baremetal:node:update").id
        try connection.execute(
            """
            DELETE FROM bare_metal_config_drives d USING bare_metal_nodes n
            WHERE d.node_id = \(id) AND n.id = d.node_id AND NOT n.instance_info ? \(member)
            """)
    }
}
