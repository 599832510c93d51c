import Contracts
package import ServiceCatalog

/// Inspections of allocations.
package enum PlacementInspections {
    package static let all = [capacity, orphanedAllocations, allocationsOfServers, allocationsOfMigrations]

    static let capacity = Inspection(
        "I3", "no provider is allocated beyond its capacity",
        """
        SELECT p.id || ' ' || i.resource_class AS subject, p.name || ': ' || sum(a.used) || ' ' || i.resource_class ||
            ' are allocated of ' || floor((i.total - i.reserved) * i.allocation_ratio) AS words
        FROM allocations a JOIN resource_providers p ON p.id = a.resource_provider_id
        JOIN inventories i ON i.resource_provider_id = a.resource_provider_id AND i.resource_class = a.resource_class
        GROUP BY p.id, p.name, i.resource_class, i.total, i.reserved, i.allocation_ratio
        HAVING sum(a.used) > floor((i.total - i.reserved) * i.allocation_ratio)
        """)

    /// Subjects are consumers. A recent claim may belong to a server whose row has not been written yet.
    package static let orphanedAllocations = Inspection(
        "I3", "allocations of servers belong to servers that exist",
        """
        SELECT c.id::text AS subject, 'server ' || c.id || ' is not there and holds ' ||
            coalesce(string_agg(a.resource_class || ' ' || a.used || ' on ' || p.name, ', ' ORDER BY p.name, a.resource_class),
                'nothing') AS words
        FROM consumers c LEFT JOIN allocations a ON a.consumer_id = c.id
        LEFT JOIN resource_providers p ON p.id = a.resource_provider_id
        WHERE c.scheduled AND c.created_at < {now} - interval '30 seconds'
        AND NOT EXISTS (SELECT 1 FROM servers s WHERE s.id = c.id AND NOT s.deleted)
        AND c.id NOT IN (\(Inspection.busy))
        GROUP BY c.id
        """)

    /// Subjects are servers whose allocations are missing, have a wrong amount, or are on an additional provider.
    package static let allocationsOfServers = Inspection(
        "I3", "each server has exactly the allocations of its flavor on its host, and none elsewhere",
        """
        SELECT coalesce(n.server, a.consumer_id)::text AS subject, 'server ' || coalesce(n.server, a.consumer_id) || ' ' ||
            string_agg(
                CASE WHEN a.used IS NULL THEN 'does not hold its ' || n.resource_class || ' ' || n.amount || ' on ' || n.host
                WHEN n.amount IS NULL THEN 'holds ' || a.resource_class || ' ' || a.used || ' on ' || a.name || ', which it should not'
                ELSE 'holds ' || a.used || ' instead of ' || n.amount || ' ' || n.resource_class || ' on ' || n.host END,
                '; ' ORDER BY coalesce(n.host, a.name), coalesce(n.resource_class, a.resource_class)) AS words
        FROM (
            SELECT s.id AS server, s.host, p.id AS provider, n.resource_class, n.amount
            FROM servers s JOIN resource_providers p ON p.host = s.host CROSS JOIN LATERAL (\(ServerNeeds.resourcesSQL("s"))) n
            WHERE \(settled("s"))
        ) n FULL JOIN (
            SELECT a.consumer_id, a.resource_provider_id, p.name, a.resource_class, a.used
            FROM allocations a JOIN resource_providers p ON p.id = a.resource_provider_id
            JOIN servers s ON s.id = a.consumer_id JOIN resource_providers h ON h.host = s.host WHERE \(settled("s"))
        ) a ON a.consumer_id = n.server AND a.resource_provider_id = n.provider AND a.resource_class = n.resource_class
        WHERE a.used IS DISTINCT FROM n.amount
        GROUP BY coalesce(n.server, a.consumer_id)
        """)

    /// Subjects are migrations. Until a resize ends, the migration holds the server's earlier allocations.
    package static let allocationsOfMigrations = Inspection(
        "I3", "allocations are held for migrations that have not ended, and for no others",
        """
        SELECT coalesce(c.id, m.uuid)::text AS subject, CASE WHEN m.uuid IS NULL
            THEN 'migration ' || c.id || ' has ended or is not there, and holds allocations'
            ELSE 'server ' || m.server_id || ' is resized, and nothing is held for its migration ' || m.uuid END AS words
        FROM (SELECT id FROM consumers WHERE consumer_type = 'MIGRATION') c
        FULL JOIN (SELECT m.uuid, m.server_id FROM server_migrations m JOIN servers s ON s.id = m.server_id AND NOT s.deleted
            WHERE m.status IN ('migrating', 'finished', 'reverting') AND s.id NOT IN (\(Inspection.busy))) m ON m.uuid = c.id
        WHERE (c.id IS NULL OR m.uuid IS NULL) AND coalesce(c.id, m.uuid) NOT IN (\(Inspection.busy))
        AND NOT EXISTS (SELECT 1 FROM server_migrations b WHERE b.uuid = c.id AND b.server_id IN (\(Inspection.busy)))
        """)

    private static func settled(_ server: String) -> String {
        """
        NOT \(server).deleted AND \(server).host IS NOT NULL AND \(server).vm_state <> 'error' AND \(server).id \
        NOT IN (\(Inspection.busy))
        """
    }
}
