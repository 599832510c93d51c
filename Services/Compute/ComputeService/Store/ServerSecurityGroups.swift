import Database
import JSON

/// The statements about the security groups of servers' ports. Network publishes them.
enum ServerSecurityGroups {
    /// The groups with their rules for incoming traffic, as Compute's API shows them.
    static func list(_ connection: Connection, of server: String) throws -> [JSONValue] {
        try connection.query(
            """
            SELECT g.id, g.name, g.description, g.project_id,
                (SELECT coalesce(json_agg(json_build_object('id', r.id, 'parent_group_id', g.id, 'ip_protocol', r.protocol,
                    'from_port', r.port_range_min, 'to_port', r.port_range_max,
                    'group', CASE WHEN o.id IS NULL THEN '{}'::json
                        ELSE json_build_object('name', o.name, 'tenant_id', o.project_id) END,
                    'ip_range', CASE WHEN o.id IS NOT NULL THEN '{}'::json ELSE json_build_object('cidr',
                        coalesce(r.remote_ip_prefix, CASE r.ethertype WHEN 'IPv4' THEN '0.0.0.0/0' ELSE '::/0' END)) END)), '[]')
                    FROM published_security_group_rules r LEFT JOIN published_security_groups o ON o.id = r.remote_group_id
                    WHERE r.security_group_id = g.id AND r.direction = 'ingress') AS rules
            FROM published_security_groups g WHERE g.id IN (SELECT b.security_group_id FROM server_interfaces i
                JOIN published_port_security_groups b ON b.port_id = i.port_id
                WHERE i.server_id = \(server) AND i.state <> 'attaching')
            ORDER BY g.name, g.id
            """
        ).map { row -> JSONValue in
            [
                "id": .string(try row.string("id")), "name": .string(try row.string("name")),
                "description": .string(try row.string("description")), "tenant_id": .string(try row.string("project_id")),
                "rules": try row.json("rules"),
            ]
        }
    }
}
