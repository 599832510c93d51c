import ComputeCore
import Database
import JSON
import Kernel
import WebAPI

/// Why a server is where it is, or nowhere: the scheduler's own record. Tenants see filters, counts and reasons;
/// operators see the hosts too.
struct SchedulingRoutes: Sendable {
    let compute: Compute

    var resource: Resource {
        Resource(
            "server-scheduling",
            routes: [
                Route(
                    .get, "/v2.1/servers/{server_id}/os-wolke-scheduling", action: "os_compute_api:os-wolke-scheduling",
                    rule: Rule.reader, "Explain a server's scheduling", handler: show),
                Route(
                    .post, "/v2.1/os-wolke-scheduling", action: "os_compute_api:os-wolke-scheduling:try", rule: Rule.member,
                    body: .json(ServerSchema.create), "Find out where a server would go, and how many like it", handler: tryOut),
            ])
    }

    /// Members of an explanation that name hosts.
    private static let operatorMembers: Set<String> = ["host", "operator", "alternatives", "resource_provider_id"]

    /// Carries the question out of the transaction that is taken back.
    private struct Question: Error {
        let request: JSONValue
    }

    /// All that a real request goes through, quota included, and a scheduling that claims nothing.
    private func tryOut(_ context: RequestContext) async throws -> Response {
        let project = try context.caller.requireProject()
        try context.authorize(target: .project(project))
        let request = try ServerRequest(context.body, networksRequired: context.version(atLeast: 2, 37))
        let caller = try context.caller
        let seesHosts = context.allows("os_compute_api:os-extended-server-attributes")
        if request.zone.target != nil, !context.allows("os_compute_api:servers:create:forced_host") {
            throw ResourceError.forbidden("Policy doesn't allow os_compute_api:servers:create:forced_host to be performed.")
        }
        let owner = ServerOwner(project: project, user: caller.userID, isAdmin: caller.isAdmin, requestID: context.requestID)
        let definition = ServerCreate(compute).definition
        let compute = compute
        let operation = compute.ambient.newUUID()
        do {
            try await compute.database.write { connection in
                let ids = try ServerCreation(
                    connection: connection, ambient: compute.ambient, settings: compute.settings, definition: definition,
                    owner: owner, request: request
                ).run()
                guard let question = try SchedulingRequest.load(
                    connection, server: ids[0], operation: operation.description)
                else { throw ResourceError.internalError("no question for a new server") }
                throw Question(request: question)
            }
            throw ResourceError.internalError("a trial was committed")
        } catch let question as Question {
            var body = question.request.objectValue ?? [:]
            body["dry_run"] = true
            let answer = try await compute.neighbours.scheduler.schedule(.object(body), operation: operation)
            return .json(200, ["scheduling": .object(SchedulingRoutes.shown(answer, seesHosts: seesHosts))])
        }
    }

    private static func shown(_ explanation: JSONValue, seesHosts: Bool) -> JSONObject {
        JSONObject(
            (explanation.objectValue?.members ?? []).filter { seesHosts || !operatorMembers.contains($0.name) }
                .map { ($0.name, $0.value) })
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context)
        let seesHosts = context.allows("os_compute_api:os-extended-server-attributes", target: server.target)
        return try await compute.database.read { connection in
            let rows = try connection.query(
                """
                SELECT explanation, created_at FROM scheduling_explanations WHERE consumer_id = \(server.id)
                ORDER BY created_at DESC LIMIT 20
                """)
            let list = try rows.map { row -> JSONValue in
                var entry = SchedulingRoutes.shown(try row.json("explanation"), seesHosts: seesHosts)
                entry["created_at"] = .string(try row.timestamp("created_at").iso8601)
                return .object(entry)
            }
            return .json(200, ["scheduling": .array(list)])
        }
    }
}
