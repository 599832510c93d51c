package import ServiceCatalog

/// Inspections of bare metal.
package enum BareMetalInspections {
    package static let all = [
        Inspection(
            "I8", "a node in a state with work in progress has a workflow",
            """
            SELECT n.id::text AS subject, 'node ' || n.id || ' has been in state ' || n.provision_state || ' since ' ||
                to_char(n.provision_updated_at, 'YYYY-MM-DD HH24:MI:SS') || ', but has no workflow' AS words
            FROM bare_metal_nodes n WHERE n.provision_state IN (\(working)) AND n.id NOT IN (\(Inspection.busy))
            """),
        Inspection(
            "I3", "an active allocation is the instance of its node",
            """
            SELECT a.id::text AS subject, 'allocation ' || a.id || ' has node ' || a.node_id || ', whose instance is ' ||
                coalesce(n.instance_uuid::text, 'none') AS words
            FROM bare_metal_allocations a JOIN bare_metal_nodes n ON n.id = a.node_id
            WHERE a.state = 'active' AND n.instance_uuid IS DISTINCT FROM a.id
            """),
    ]

    /// States in which a workflow must be active. In a hold it waits for an operator.
    private static let working = ProvisionState.allCases.filter { $0.isWorking || $0.isHeld }.map { "'\($0.rawValue)'" }
        .joined(separator: ", ")
}
