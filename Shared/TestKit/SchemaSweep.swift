package import Database
import JSON
import Kernel
import WebAPI

extension RouteSweep {
    /// Checks that the routes' responses match the schemas in the OpenAPI document.
    ///
    /// - Parameter tokens: callers of whom at least one may read each resource.
    /// - Returns: the differences, and the number of compared responses.
    package func answersDifferingFromSchemas(_ tokens: [String]) async throws -> (findings: [String], compared: Int) {
        var findings: [String] = []
        var compared = 0
        for route in routes where route.method == .get {
            guard let schema = route.answer.openAPI else { continue }
            for token in tokens {
                let response = await api.respond(to: try request(route, token).request)
                guard response.status == 200, let bytes = response.bytes else { continue }
                compared += 1
                findings += SchemaCheck.findings(try JSONValue.parse(bytes), schema, at: RouteSweep.name(route))
            }
        }
        return (findings + repeatedParameters, compared)
    }

    /// GET routes of the OpenAPI document without a schema of their response, other than `allowed` ones.
    ///
    /// - Parameter allowed: the reason, by route; `…/*` stands for all routes with this beginning.
    /// - Returns: routes without a reason, and reasons for routes that have a schema or do not exist.
    package func undeclaredAnswers(_ allowed: [String: String]) -> [String] {
        let undeclared = Set(
            routes.filter { $0.method == .get && !$0.isUnavailable && $0.status != 204 && $0.answer.openAPI == nil }.map(RouteSweep.name)
                // Resources that never exist are always 404.
                .filter { !$0.contains("{absent_id}") })
        func fits(_ key: String, _ route: String) -> Bool { key.hasSuffix("*") ? route.hasPrefix(key.dropLast()) : key == route }
        let unexplained = undeclared.filter { route in !allowed.keys.contains { fits($0, route) } }
        let stale = allowed.keys.filter { key in !undeclared.contains { fits(key, $0) } }
        return unexplained.sorted() + stale.sorted().map { "there is no such route without a schema: \($0)" }
    }

    /// Parameters that the OpenAPI document has more than once in an operation, which OpenAPI does not allow.
    private var repeatedParameters: [String] {
        (OpenAPI.document(api)["paths"]?.objectValue?.members ?? []).flatMap { path in
            (path.value.objectValue?.members ?? []).flatMap { method -> [String] in
                let names = (method.value["parameters"]?.arrayValue ?? []).map { "\($0["in"] ?? .null) \($0["name"] ?? .null)" }
                return Dictionary(grouping: names) { $0 }.filter { $0.value.count > 1 }.keys.sorted().map {
                    "\(method.name) \(path.name): \($0) is there more than once"
                }
            }
        }
    }

    /// Whether lists compare clients' values with columns in the columns' own types. A comparison with a column's text cannot use an index,
    /// and text that is not a UUID is an error where PostgreSQL expects a UUID.
    ///
    /// - Returns: keys and filters that do not, and the number of checked kinds.
    package func comparisonsWithoutIndex(_ database: Database? = nil) async throws -> (findings: [String], compared: Int) {
        guard let database = database ?? self.database else { return (["the sweep has no database"], 0) }
        let kinds = routes.compactMap { route -> (name: String, table: Table)? in
            switch route.answer {
            case .list(let kind), .one(let kind): (RouteSweep.name(route), kind.table)
            case .undeclared, .form: nil
            }
        }
        return try await database.read { connection in
            var findings: [String] = []
            for (name, table) in kinds {
                func type(_ expression: String) throws -> String {
                    try connection.query(
                        "SELECT pg_typeof((SELECT \(raw: expression) FROM \(raw: table.source) LIMIT 0))::text AS name"
                    )[0].string("name")
                }
                let found = try type(table.key)
                let isDeclared =
                    switch table.keyType {
                    case .uuid: found == "uuid"
                    case .text: found == "text"
                    case .integer: ["integer", "bigint"].contains(found)
                    }
                if !isDeclared { findings.append("\(name): the key \(table.key) is of type \(found) and declared as \(table.keyType)") }
                for field in table.fields where field.filter?.comparesText ?? false {
                    guard try type(field.expression) == "uuid" else { continue }
                    findings.append("\(name): the filter \(field.name) compares the text of a uuid")
                }
            }
            return (findings, kinds.count)
        }
    }
}
