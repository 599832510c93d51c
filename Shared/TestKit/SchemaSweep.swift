import JSON
import WebAPI

extension RouteSweep {
    /// Whether what routes answer has the form that the OpenAPI document declares.
    ///
    /// - Parameter tokens: callers of whom one at least may read each resource.
    /// - Returns: what differs, and how many answers were compared.
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
        return (findings, compared)
    }
}
