import BareMetalCore
import Database
import JSON
import Kernel
import Workflow

/// The statements about nodes for workflows and the periodic task.
extension NodeStore {
    /// The columns that show the step in progress.
    enum StepColumn: String, Sendable {
        case clean = "clean_step"
        case deploy = "deploy_step"
        case service = "service_step"
    }

    static func showStep(_ connection: Connection, _ id: String, _ column: StepColumn, _ step: NodeRules.Step) throws {
        let text = try JSONValue(encoding: step)
        try connection.execute("UPDATE bare_metal_nodes SET \(raw: column.rawValue) = \(text)::jsonb WHERE id = \(id)::uuid")
    }

    static func endSteps(_ connection: Connection, _ id: String) throws {
        try connection.execute(
            "UPDATE bare_metal_nodes SET clean_step = '{}', deploy_step = '{}', service_step = '{}' WHERE id = \(id)::uuid")
    }

    /// Puts the node into maintenance: an operator has to check it before it is used again.
    static func keepOutOfService(_ connection: Connection, _ id: String, fault: String, reason: String) throws {
        try connection.execute(
            """
            UPDATE bare_metal_nodes SET maintenance = true, fault = \(fault), maintenance_reason = \(String(reason.prefix(4000)))
            WHERE id = \(id)::uuid
            """)
    }

    /// Clears everything that belonged to the node's former instance.
    static func forgetInstance(_ connection: Connection, _ id: String, at now: Timestamp) throws {
        try NodeClaimStore.forget(connection, node: id)
        try connection.execute(
            """
            UPDATE bare_metal_nodes SET instance_uuid = NULL, instance_info = '{}', protected = false, protected_reason = NULL,
                updated_at = \(now) WHERE id = \(id)::uuid
            """)
        try connection.execute("DELETE FROM bare_metal_config_drives WHERE node_id = \(id)::uuid")
    }

    /// Records how the machine starts, as its controller shows it.
    static func recordBoot(_ connection: Connection, _ id: String, _ boot: BootState, at now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE bare_metal_nodes SET boot_mode = \(boot.mode?.rawValue), secure_boot = \(boot.isSecure), updated_at = \(now)
            WHERE id = \(id)::uuid
            """)
    }

    static func recordError(_ connection: Connection, _ id: String, _ error: String, at now: Timestamp) throws {
        try connection.execute("UPDATE bare_metal_nodes SET last_error = \(error), updated_at = \(now) WHERE id = \(id)::uuid")
    }

    static func beginInspection(_ connection: Connection, _ id: String, at now: Timestamp) throws {
        try connection.execute(
            "UPDATE bare_metal_nodes SET inspection_started_at = \(now), inspection_finished_at = NULL WHERE id = \(id)::uuid")
    }

    static func endInspection(_ connection: Connection, _ id: String, _ inventory: HardwareInventory, at now: Timestamp) throws {
        try connection.execute(
            """
            UPDATE bare_metal_nodes SET properties = properties || \(inventory.properties)::jsonb, inventory = \(inventory.document)::jsonb,
                inspection_finished_at = \(now) WHERE id = \(id)::uuid
            """)
    }

    /// A page of the nodes whose power state is polled: those without work in progress and not in maintenance.
    static func idleNodes(_ connection: Connection, after id: UUID128?, limit: Int) throws -> [Node] {
        let condition: SQL = id.map { "n.id > \($0)" } ?? "TRUE"
        let rows = try connection.query(
            """
            SELECT \(columns) FROM bare_metal_nodes n
            WHERE \(condition) AND NOT n.maintenance AND n.provision_state <> 'enroll'
                AND \(Workflows.isIdle("n.id"))
            ORDER BY n.id LIMIT \(limit)
            """)
        return try rows.map(node)
    }

    /// The number of nodes in each provision state, and of those in maintenance.
    static func counts(_ connection: Connection) throws -> (states: [String: Int], inMaintenance: Int) {
        let rows = try connection.query(
            """
            SELECT provision_state, count(*) AS nodes, count(*) FILTER (WHERE maintenance) AS maintained
            FROM bare_metal_nodes GROUP BY provision_state
            """)
        var states: [String: Int] = [:]
        for row in rows { states[try row.string("provision_state")] = try row.int("nodes") }
        return (states, try rows.reduce(0) { try $0 + $1.int("maintained") })
    }

    /// Records a power state that was not requested through this API.
    ///
    /// - Returns: whether the state was recorded: the stored one differed, and the node still has no work in progress.
    static func followPower(_ connection: Connection, _ node: Node, _ power: NodePower, ambient: Ambient) throws -> Bool {
        let changed = try connection.execute(
            """
            UPDATE bare_metal_nodes n SET power_state = \(power.rawValue), updated_at = \(ambient.now)
            WHERE n.id = \(node.id) AND n.power_state IS DISTINCT FROM \(power.rawValue)
                AND \(Workflows.isIdle("n.id"))
            """)
        guard changed == 1 else { return false }
        try record(
            connection, node.id.description, "monitoring",
            "The power was changed outside of this cloud: \(node.power?.rawValue ?? "unknown") → \(power.rawValue).", isError: false,
            ambient: ambient)
        return true
    }
}
