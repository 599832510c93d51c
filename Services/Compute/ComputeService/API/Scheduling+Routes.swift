import Authorization
import ComputeCore
import Contracts
import Database
import JSON
import Kernel
import WebAPI

/// Explains the scheduler's decision for a server, from its own record. Tenants see filters, counts and reasons; operators
/// see the hosts too.
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
                Route(
                    .post, "/v2.1/os-wolke-scheduling/host-failure", action: "os_compute_api:os-wolke-scheduling:host_failure",
                    rule: Rule.admin, body: .json(.object([.init("host", .identifier, required: true)])),
                    "Find out where the servers of a host would find another one if it failed", handler: fail),
            ])
    }

    /// Members of an explanation that name hosts.
    private static let operatorMembers: Set<String> = ["host", "operator", "alternatives", "resource_provider_id"]

    /// Carries the scheduling request out of the transaction, which is rolled back.
    private struct Question: Error {
        let first: SchedulingTrial?
        /// The requests for all servers if the request asks for several.
        let all: [ScheduleServer]
    }

    /// Runs all checks of a real request, including quota, and a scheduling decision without a claim.
    private func tryOut(_ context: RequestContext) async throws -> Response {
        let project = try context.caller.requireProject()
        let decision = try context.authorize(project, target: .project(project))
        let request = try ServerRequest(
            context.body, networksRequired: context.version(atLeast: 2, 37), knowsMultiattach: context.version(atLeast: 2, 60))
        let seesHosts = context.allows("os_compute_api:os-extended-server-attributes")
        try ServerRoutes.requireTarget(context, request.zone)
        let owner = try ServerOwner(context, project: project)
        let workflow = ServerCreate(compute).workflow
        let compute = compute
        do {
            try await compute.database.write { connection in
                let ids = try ServerCreation(
                    connection: connection, ambient: compute.ambient, settings: compute.settings, images: compute.images,
                    workflow: workflow, owner: owner, request: request
                ).run(decision)
                let first = try ids.first.flatMap {
                    try SchedulingTrial.load(connection, server: $0, operation: compute.ambient.newUUID())
                }
                let all =
                    ids.count > 1 ? try SchedulingQuestion.trials(connection, servers: ids, ambient: compute.ambient).questions : [:]
                throw Question(first: first, all: ids.compactMap { all[$0] })
            }
            throw ResourceError.internalError("a trial was committed")
        } catch let question as Question {
            guard let first = question.first else { throw ResourceError.internalError("no question for a new server") }
            var shown = try SchedulingRoutes.shown(try await first.ask(compute), seesHosts: seesHosts)
            if question.all.count > 1 {
                let answers = try await SchedulingTrial.askTogether(question.all, compute).answers
                shown["servers"] = .array(try answers.map { .object(try SchedulingRoutes.shown($0, seesHosts: seesHosts)) })
            }
            return .json(200, ["scheduling": .object(shown)])
        }
    }

    /// The hosts to which the servers of a host would be evacuated if it failed. Places the largest servers first, as they are the
    /// hardest to place.
    private func fail(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let host = context.body["host"]?.stringValue ?? ""
        let compute = compute
        let (servers, questions, lost) = try await compute.database.read { connection in
            let hosted = try SchedulingStore.servers(connection, on: host)
            let (found, unreadable) = try SchedulingQuestion.trials(connection, servers: hosted.map(\.id), ambient: compute.ambient)
            var servers: [JSONObject] = []
            var questions: [ScheduleServer] = []
            var lost: [JSONObject] = []
            for server in hosted {
                var shown: JSONObject = [
                    "id": .string(server.id), "name": .string(server.name), "project_id": .string(server.project),
                    "vm_state": .string(server.vmState), "flavor": JSONValue(server.flavor),
                ]
                if let reason = unreadable[server.id] {
                    shown["result"] = "rejected"
                    shown["message"] = .string("The record of the server cannot be read: \(reason)")
                    lost.append(shown)
                }
                guard var question = found[server.id] else { continue }
                // Any other host is acceptable, regardless of what happens to this one.
                question.host = nil
                questions.append(question)
                servers.append(shown)
            }
            return (servers, questions, lost)
        }
        let answer = try await SchedulingTrial.askTogether(questions, without: [host], compute)
        let placed = try zip(servers, answer.answers).map { server, answer in
            var server = server
            for member in try JSONValue(encoding: answer).objectValue?.members ?? [] { server[member.name] = member.value }
            return JSONValue.object(server)
        }
        let failure: JSONObject = [
            "host": .string(host), "servers": .array(placed + lost.map { .object($0) }),
            "capacity": try JSONValue(encoding: answer.capacity),
        ]
        return .json(200, ["host_failure": .object(failure)])
    }

    private static func shown(_ answer: SchedulingAnswer, seesHosts: Bool) throws -> JSONObject {
        shown(try JSONValue(encoding: answer), seesHosts: seesHosts)
    }

    private static func shown(_ explanation: JSONValue, seesHosts: Bool) -> JSONObject {
        JSONObject(
            (explanation.objectValue?.members ?? []).filter { seesHosts || !operatorMembers.contains($0.name) }
                .map { ($0.name, $0.value) })
    }

    private func show(_ context: RequestContext) async throws -> Response {
        let server = try await compute.authorizedServer(context).value
        let seesHosts = context.allows("os_compute_api:os-extended-server-attributes", target: server.target)
        let compute = compute
        let (list, trial) = try await compute.database.read { connection in
            let list = try SchedulingStore.explanations(connection, of: server.id).map { explanation, time -> JSONValue in
                var entry = SchedulingRoutes.shown(explanation, seesHosts: seesHosts)
                entry["created_at"] = .string(time.iso8601)
                return .object(entry)
            }
            let isNowhere = list.first?["result"]?.stringValue == "rejected"
            let trial =
                isNowhere
                ? try SchedulingTrial.load(connection, server: server.id, operation: compute.ambient.newUUID()) : nil
            return (list, trial)
        }
        var answer: JSONObject = ["scheduling": .array(list)]
        // Resources that were missing then may be available now.
        if let trial { answer["now"] = .object(try SchedulingRoutes.shown(try await trial.ask(compute), seesHosts: seesHosts)) }
        return .json(200, .object(answer))
    }
}
