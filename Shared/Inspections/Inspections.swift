extension Inspection {
    /// Everything that the store alone can tell. Work under way is not a fault: what it touches is left out, and
    /// whoever looks looks twice.
    package static let all: [Inspection] = work + placement + Ledger.all.map(\.inspection) + addresses + volumes + servers + machines

    static let busy = "SELECT subject_id FROM workflows WHERE finished_at IS NULL"

    // MARK: work

    private static let work = [
        Inspection(
            "I8", "work under way moves or waits with a deadline",
            """
            SELECT id::text AS subject, service || ' has not touched ' || kind || ' of ' || subject_id || ' since ' ||
                to_char(run_at, 'HH24:MI:SS') || ' (step ' || step || coalesce(': ' || last_error, '') || ')' AS words
            FROM workflows WHERE finished_at IS NULL AND run_at < {now} - interval '90 seconds'
            """),
        Inspection(
            "I8", "every workflow is known to a release that runs",
            """
            SELECT id::text AS subject, kind || ' of ' || subject_id || ' stands still at the step ' || step || ': ' || last_error AS words
            FROM workflows WHERE finished_at IS NULL AND last_error LIKE 'this release cannot carry it on: %'
            """),
        Inspection(
            "I8", "work that asks for other work gets it",
            """
            SELECT i.subject_id || ' ' || i.kind AS subject, i.service || ' has not begun ' || i.kind || ' of ' ||
                i.subject_id || ', asked for at ' || to_char(i.created_at, 'HH24:MI:SS') AS words
            FROM intents i WHERE i.created_at < {now} - interval '60 seconds'
            AND NOT EXISTS (SELECT 1 FROM workflows w WHERE w.subject_id = i.subject_id AND w.finished_at IS NULL)
            """),
        Inspection(
            "I1", "what was written for the broker reaches it",
            """
            SELECT id::text AS subject, 'a message of type ' || type || ' for the queue ' || queue ||
                ' has been waiting since ' || to_char(created_at, 'HH24:MI:SS') AS words
            FROM outbox WHERE created_at < {now} - interval '60 seconds'
            """),
    ]

    // MARK: addresses

    private static let addresses = [
        Inspection(
            "I5", "an address of a subnet has one owner",
            """
            SELECT f.subnet_id || ' ' || f.ip_address AS subject, f.ip_address || ' of subnet ' || f.subnet_id || ' belongs to ' ||
                count(*) || ' ports' AS words
            FROM port_fixed_ips f GROUP BY f.subnet_id, f.ip_address HAVING count(*) > 1
            """),
        Inspection(
            "I5", "ports of servers belong to servers that are there",
            """
            SELECT p.id::text AS subject, 'port ' || p.id || ' (' || p.mac_address || ') belongs to server ' || p.device_id ||
                ', which is not there' AS words
            FROM ports p WHERE p.device_owner LIKE 'compute:%' AND p.device_id <> ''
            AND NOT EXISTS (SELECT 1 FROM servers s WHERE s.id::text = p.device_id AND NOT s.deleted)
            AND p.device_id NOT IN (SELECT subject_id::text FROM workflows WHERE finished_at IS NULL)
            """),
        Inspection(
            "I5", "each network interface of a server is a port that is there",
            """
            SELECT i.port_id::text AS subject, 'server ' || i.server_id || ' has the port ' || i.port_id || ', which is not there' AS words
            FROM server_interfaces i JOIN servers s ON s.id = i.server_id AND NOT s.deleted
            WHERE i.state = 'attached' AND NOT EXISTS (SELECT 1 FROM ports p WHERE p.id = i.port_id)
            AND i.server_id NOT IN (\(busy))
            """),
    ]

    // MARK: volumes

    private static let volumes = [
        Inspection(
            "I6", "attachments belong to servers that are there",
            """
            SELECT a.id::text AS subject, 'volume ' || a.volume_id || ' is attached to server ' || a.server_id ||
                ', which is not there' AS words
            FROM volume_attachments a WHERE a.server_id IS NOT NULL
            AND NOT EXISTS (SELECT 1 FROM servers s WHERE s.id = a.server_id AND NOT s.deleted)
            AND a.server_id NOT IN (\(busy))
            """),
        Inspection(
            "I6", "a volume is in use exactly when it is attached",
            """
            SELECT v.id::text AS subject, 'volume ' || v.id || ' is ' || v.status || ' and has ' || count(a.id) || ' attachments' AS words
            FROM volumes v LEFT JOIN volume_attachments a ON a.volume_id = v.id
            WHERE v.id NOT IN (\(busy)) AND v.status IN ('available', 'in-use')
            GROUP BY v.id, v.status HAVING (v.status = 'in-use') <> (count(a.id) > 0)
            """),
        Inspection(
            "I6", "only one server writes to a volume, unless it may be shared",
            """
            SELECT v.id::text AS subject, 'volume ' || v.id || ' is attached ' || count(*) || ' times and is not multiattach' AS words
            FROM volumes v JOIN volume_attachments a ON a.volume_id = v.id AND a.status = 'attached'
            WHERE NOT v.multiattach GROUP BY v.id HAVING count(*) > 1
            """),
    ]

    // MARK: machines

    /// What the machines themselves have looked at; one that is silent says nothing new.
    private static let machines = [
        Inspection(
            "I15", "tools that read images run in a sandbox that works",
            """
            SELECT 'host ' || h.host AS subject, 'the host ' || h.host || ' can make no disks of images: ' ||
                (h.capabilities->>'sandbox_problem') AS words
            FROM hypervisors h WHERE h.capabilities->>'sandbox_problem' IS NOT NULL
            UNION ALL SELECT 'block storage on ' || b.host, 'Block Storage on ' || b.host || ' can make no volumes of images: ' ||
                b.sandbox_problem
            FROM block_storage_services b WHERE b.sandbox_problem IS NOT NULL AND b.seen_at > {now} - interval '5 minutes'
            """)
    ]

    // MARK: servers

    private static let servers = [
        Inspection(
            "I12", "a server is as it should be, or somebody works on it",
            """
            SELECT s.id::text AS subject, 'server ' || s.id || ' is ' || coalesce(s.observed_power, 'not seen') || ' on ' || s.host ||
                ' and should be ' || s.power || coalesce(': ' || s.observed_error, '') AS words
            FROM servers s WHERE NOT s.deleted AND s.host IS NOT NULL AND s.vm_state <> 'error' AND s.task_state IS NULL
            AND s.power IS NOT NULL AND s.id NOT IN (\(busy)) AND s.observed_power IS DISTINCT FROM s.power
            """),
        Inspection(
            "I1", "nothing is half done with nobody at work on it",
            """
            SELECT s.id::text AS subject, 'server ' || s.id || ' is ' || s.vm_state || ' (' || s.task_state ||
                ') and nothing works on it' AS words
            FROM servers s WHERE NOT s.deleted AND s.task_state IS NOT NULL AND s.id NOT IN (\(busy))
            AND s.id NOT IN (SELECT subject_id FROM intents) AND s.updated_at < {now} - interval '60 seconds'
            """),
    ]
}
