package import ServiceCatalog

/// Inspections of servers, their network interfaces and their hosts.
package enum ComputeInspections {
    package static let all = [
        Inspection(
            "I12", "a server matches its desired state, or a workflow is in progress for it",
            """
            SELECT s.id::text AS subject, 'server ' || s.id || ' is ' || coalesce(s.observed_power, 'not seen') || ' on ' || s.host ||
                ' and should be ' || s.power || coalesce(': ' || s.observed_error, '') AS words
            FROM servers s WHERE NOT s.deleted AND s.host IS NOT NULL AND s.vm_state <> 'error' AND s.task_state IS NULL
            AND s.power IS NOT NULL AND s.id NOT IN (\(Inspection.busy)) AND s.observed_power IS DISTINCT FROM s.power
            """),
        Inspection(
            "I1", "no resource is in a transitional state without a workflow in progress",
            """
            SELECT s.id::text AS subject, 'server ' || s.id || ' is ' || s.vm_state || ' (' || s.task_state ||
                ') and no workflow is in progress for it' AS words
            FROM servers s WHERE NOT s.deleted AND s.task_state IS NOT NULL AND s.id NOT IN (\(Inspection.busy))
            AND s.id NOT IN (SELECT subject_id FROM intents) AND s.updated_at < {now} - interval '60 seconds'
            """),
        Inspection(
            "I1", "no host works on a job without a workflow in progress",
            """
            SELECT j.server_id::text AS subject, 'host ' || j.host || ' has the job ' || j.id || ' of server ' || j.server_id ||
                ', and no workflow is in progress for it' AS words
            FROM server_jobs j WHERE j.server_id NOT IN (\(Inspection.busy)) AND j.created_at < {now} - interval '60 seconds'
            """),
        Inspection(
            "I5", "each network interface of a server is an existing port",
            """
            SELECT i.port_id::text AS subject, 'server ' || i.server_id || ' has the port ' || i.port_id ||
                ', which does not exist' AS words
            FROM server_interfaces i JOIN servers s ON s.id = i.server_id AND NOT s.deleted
            WHERE i.state = 'attached' AND NOT EXISTS (SELECT 1 FROM ports p WHERE p.id = i.port_id)
            AND i.server_id NOT IN (\(Inspection.busy))
            """),
        // Findings of the machines' own checks. A machine that does not report has no new ones.
        Inspection(
            "I15", "the sandbox for image tools works on every host",
            """
            SELECT 'host ' || h.host AS subject, 'the host ' || h.host || ' can make no disks of images: ' ||
                (h.capabilities->>'sandbox_problem') AS words
            FROM hypervisors h WHERE h.capabilities->>'sandbox_problem' IS NOT NULL
            """),
    ]
}
