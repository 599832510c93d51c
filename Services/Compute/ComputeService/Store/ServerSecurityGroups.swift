import Database
import JSON
import Kernel

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

    /// The group's id, and the ports that it has to be added to or removed from.
    ///
    /// - Throws: 404 if there is no such group, or no port to change; 409 if several groups have the name.
    static func change(_ connection: Connection, of server: ServerRecord, name: String, adds: Bool) throws -> JSONValue {
        let groups = try connection.query(
            """
            SELECT id FROM published_security_groups WHERE project_id = \(server.project) AND (id::text = \(name) OR name = \(name))
            """
        ).map { try $0.string("id") }
        guard let group = groups.first else {
            throw ResourceError.notFound("Security group \(name.prefix(255)) not found for project \(server.project).")
        }
        guard groups.count == 1 else {
            throw ResourceError.conflict("Multiple security groups found matching '\(name.prefix(255))'. Use an ID to be more specific.")
        }
        let ports = try connection.query(
            """
            SELECT i.port_id, (SELECT json_agg(g.security_group_id) FROM published_port_security_groups g
                WHERE g.port_id = i.port_id) AS groups
            FROM server_interfaces i JOIN published_ports p ON p.id = i.port_id
            WHERE i.server_id = \(server.id) AND i.state <> 'attaching' AND p.port_security_enabled
            """
        ).map { (port: try $0.string("port_id"), groups: try $0.strings("groups")) }
        let present = ports.contains { $0.groups.contains(group) }
        guard !ports.isEmpty, adds || present else {
            throw ResourceError.notFound(
                adds
                    ? "Instance \(server.id) has no port that takes security groups."
                    : "Security group \(name.prefix(255)) not associated with the instance \(server.id)")
        }
        return ["group": .string(group), "ports": JSONValue(ports.filter { $0.groups.contains(group) != adds }.map(\.port))]
    }
}
