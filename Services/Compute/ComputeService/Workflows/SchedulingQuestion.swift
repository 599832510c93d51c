import Contracts
import Database
import JSON
import Kernel

/// Builds the scheduling request from a server's row.
enum SchedulingQuestion {
    /// - Parameter newFlavor: whether the server is to have the other flavor of its row.
    /// - Returns: nil without the server.
    /// - Throws: 400 for an extra spec or image property that is invalid for the scheduler.
    static func load(_ connection: Connection, server: String, operation: String, newFlavor: Bool = false) throws -> ScheduleServer? {
        try load(connection, where: "s.id = \(server)", newFlavor: newFlavor) { operation }.first
    }

    /// Questions about several servers that claim nothing, with one statement. A row that cannot be read affects only its server.
    ///
    /// - Returns: by the servers' ids, the questions and the reasons why there is none. Servers that do not exist are in neither.
    static func trials(
        _ connection: Connection, servers: [String], ambient: Ambient
    ) throws -> (questions: [String: ScheduleServer], unreadable: [String: String]) {
        var (questions, unreadable): ([String: ScheduleServer], [String: String]) = ([:], [:])
        for row in try rows(connection, where: "s.id = ANY(\(servers)::uuid[])", newFlavor: false) {
            let id = try row.string("id")
            do {
                questions[id] = try question(of: row, operation: ambient.newUUID().description)
                questions[id]?.dryRun = true
            } catch {
                unreadable[id] = String("\(error)".prefix(500))
            }
        }
        return (questions, unreadable)
    }

    /// - Parameter operation: the operation id for the next server.
    private static func load(
        _ connection: Connection, where condition: SQL, newFlavor: Bool, operation: () -> String
    ) throws -> [ScheduleServer] {
        try rows(connection, where: condition, newFlavor: newFlavor).map { try question(of: $0, operation: operation()) }
    }

    private static func rows(_ connection: Connection, where condition: SQL, newFlavor: Bool) throws -> Rows {
        let flavor: SQL = newFlavor ? "coalesce(s.other_flavor, s.flavor)" : "s.flavor"
        return try connection.query(
            """
            SELECT s.id, s.project_id, s.user_id, \(flavor) AS flavor, s.image, \(ServerProperties.ofImage) AS image_properties,
                s.pinned_zone, s.requested_host, s.scheduler_hints, s.group_id, g.policy, g.rules,
                (SELECT json_agg(m.id) FROM servers m WHERE m.group_id = s.group_id AND NOT m.deleted AND m.id <> s.id)
                    AS members
            FROM servers s LEFT JOIN server_groups g ON g.id = s.group_id WHERE \(condition) AND NOT s.deleted ORDER BY s.id
            """)
    }

    private static func question(of row: Row, operation: String) throws -> ScheduleServer {
        let wanted: ServerFlavor = try row.value("flavor")
        let image: ServerImage? = try row.optionalValue("image")
        let properties: TextMap = try row.value("image_properties")
        let hints = try row.object("scheduler_hints")
        var group: ScheduleServer.Group?
        if let id = try row.optionalString("group_id"), let policy = try row.optionalString("policy") {
            group = ScheduleServer.Group(
                id: id, policy: policy, rules: try row.optionalJSON("rules")?.objectValue ?? [:], members: try row.strings("members"))
        }
        var question = ScheduleServer(
            operationID: operation, consumerID: try row.string("id"), projectID: try row.string("project_id"),
            userID: try row.string("user_id"),
            zone: try row.optionalString("pinned_zone"), host: try row.optionalString("requested_host"), resources: [:],
            imageProperties: properties, group: group, sameHost: list(hints["same_host"]),
            differentHost: list(hints["different_host"]))
        question.ask(for: try ServerNeeds(wanted, image, properties: properties), of: wanted)
        return question
    }

    private static func list(_ value: JSONValue?) -> [String] {
        switch value {
        case .array(let list)?: list.compactMap(\.stringValue)
        case .string(let text)?: [text]
        default: []
        }
    }
}
