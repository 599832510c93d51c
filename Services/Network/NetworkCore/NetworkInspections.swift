package import ServiceCatalog

/// Inspections of ports and addresses.
package enum NetworkInspections {
    package static let all = [
        Inspection(
            "I5", "an address of a subnet has one owner",
            """
            SELECT f.subnet_id || ' ' || f.ip_address AS subject, f.ip_address || ' of subnet ' || f.subnet_id || ' belongs to ' ||
                count(*) || ' ports' AS words
            FROM port_fixed_ips f GROUP BY f.subnet_id, f.ip_address HAVING count(*) > 1
            """),
        Inspection(
            "I5", "ports of servers belong to servers that exist",
            """
            SELECT p.id::text AS subject, 'port ' || p.id || ' (' || p.mac_address || ') belongs to server ' || p.device_id ||
                ', which is not there' AS words
            FROM ports p WHERE p.device_owner LIKE 'compute:%' AND p.device_id <> ''
            AND NOT EXISTS (SELECT 1 FROM servers s WHERE s.id::text = p.device_id AND NOT s.deleted)
            AND p.device_id NOT IN (SELECT subject_id::text FROM workflows WHERE finished_at IS NULL)
            """),
    ]
}
