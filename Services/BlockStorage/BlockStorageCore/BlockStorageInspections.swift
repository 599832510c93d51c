package import ServiceCatalog

/// Inspections of volumes and their attachments.
package enum BlockStorageInspections {
    package static let all = [
        Inspection(
            "I6", "attachments belong to servers that exist",
            """
            SELECT a.id::text AS subject, 'volume ' || a.volume_id || ' is attached to server ' || a.server_id ||
                ', which is not there' AS words
            FROM volume_attachments a WHERE a.server_id IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM servers s WHERE s.id = a.server_id AND NOT s.deleted)
            AND a.server_id NOT IN (\(Inspection.busy))
            """),
        Inspection(
            "I6", "a volume is in use exactly when it is attached",
            """
            SELECT v.id::text AS subject, 'volume ' || v.id || ' is ' || v.status || ' and has ' || count(a.id) || ' attachments' AS words
            FROM volumes v LEFT JOIN volume_attachments a ON a.volume_id = v.id
            WHERE v.id NOT IN (\(Inspection.busy)) AND v.status IN ('available', 'in-use')
            GROUP BY v.id, v.status HAVING (v.status = 'in-use') <> (count(a.id) > 0)
            """),
        Inspection(
            "I6", "only one server writes to a volume, unless it may be shared",
            """
            SELECT v.id::text AS subject, 'volume ' || v.id || ' is attached ' || count(*) || ' times and is not multiattach' AS words
            FROM volumes v JOIN volume_attachments a ON a.volume_id = v.id AND a.status = 'attached'
            WHERE NOT v.multiattach GROUP BY v.id HAVING count(*) > 1
            """),
        // Findings of the machines' own checks. A machine that does not report has no new ones.
        Inspection(
            "I15", "the sandbox for image tools works on the machines of Block Storage",
            """
            SELECT 'block storage on ' || b.host AS subject, 'Block Storage on ' || b.host || ' can make no volumes of images: ' ||
                b.sandbox_problem AS words
            FROM block_storage_services b WHERE b.sandbox_problem IS NOT NULL AND b.seen_at > {now} - interval '5 minutes'
            """),
    ]
}
