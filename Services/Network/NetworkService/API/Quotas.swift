import Authorization
import Contracts
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

extension NetworkAPI {
    private static let body = BodySchema.wrapped(
        "quota",
        .object(
            NetworkQuotas.all.map { .init($0.name, .integer(min: -1, max: Int(Int32.max))) } + [
                .tenantID, .projectID, .init("force", .boolean), .init("check_limit", .boolean),
            ]))

    private static let limits = BodySchema.object(BodySchema.Property.required(NetworkQuotas.all.map(\.name), .limit))
    private static let owner: [BodySchema.Property] = BodySchema.Property.required(["tenant_id", "project_id"], .anyText)
    private static let changed = BodySchema.object(owner + BodySchema.Property.required(NetworkQuotas.all.map(\.name), .nullable(.limit)))
    private static let usage = BodySchema.object(
        BodySchema.Property.required(
            NetworkQuotas.all.map(\.name), .object([.required("limit", .limit), .required("used", .count), .required("reserved", .count)])))

    var quotas: Resource {
        let base = "/v2.0/quotas"
        let own = NetworkPolicy.reader
        return Resource(
            "quota",
            routes: [
                Route(
                    .get, base, action: "get_quotas", rule: NetworkPolicy.admin,
                    answer: .form(.wrapped("quotas", .many(NetworkAPI.changed))), "List quotas that differ from the defaults"
                ) { try await listQuotas($0) },
                ownProjectRoute(base, "tenant"), ownProjectRoute(base, "project"),
                Route(
                    .get, base + "/{project}", action: "get_quota", rule: own, answer: .form(.wrapped("quota", NetworkAPI.limits)),
                    "Show a project's quota"
                ) { context in
                    let project = try quotaProject(context).value
                    let all = try await database.read { try quota.all($0, project: project) }
                    return quotaAnswer(all.mapValues { JSONValue.integer(Int64($0.limit)) }, project)
                },
                Route(
                    .get, base + "/{project}/default", action: "get_quota", rule: own,
                    answer: .form(.wrapped("quota", NetworkAPI.limits)), "Show the default quota"
                ) { context in
                    let project = try quotaProject(context).value
                    let presets = quota.declarations.map { ($0.name, JSONValue(quota.preset($0))) }
                    return quotaAnswer(Dictionary(uniqueKeysWithValues: presets), project)
                },
                detailsRoute(base + "/{project}/details"), detailsRoute(base + "/{project}/details.json"),
                Route(
                    .put, base + "/{project}", action: "update_quota", rule: NetworkPolicy.admin,
                    body: .json(NetworkAPI.body), "Set a project's quota", handler: setQuota),
                Route(
                    .delete, base + "/{project}", action: "delete_quota", rule: NetworkPolicy.admin, status: 204,
                    "Reset quotas to the defaults", handler: resetQuota),
            ])
    }

    private func ownProjectRoute(_ base: String, _ name: String) -> Route {
        Route(
            .get, base + "/" + name, action: "get_quota_project", rule: "@",
            answer: .form(.wrapped(name, .object(NetworkAPI.owner))), "The project of the token"
        ) { try ownProject($0, name) }
    }

    private func detailsRoute(_ path: String) -> Route {
        Route(
            .get, path, action: "get_quota", rule: NetworkPolicy.reader, answer: .form(.wrapped("quota", NetworkAPI.usage)),
            "Show quota and usage", handler: details)
    }

    private func details(_ context: RequestContext) async throws -> Response {
        let project = try quotaProject(context).value
        let all = try await database.read { try quota.all($0, project: project) }
        return quotaAnswer(
            all.mapValues { ["limit": JSONValue($0.limit), "used": JSONValue($0.used), "reserved": 0] }, project)
    }

    private func quotaProject(_ context: RequestContext) throws -> Authorized<String> {
        let project = context.parameter("project")
        guard (1...64).contains(project.unicodeScalars.count) else {
            throw ResourceError.badRequest("'\(project.prefix(64))' is not a project id.")
        }
        return try context.authorize(project, target: .project(project))
    }

    private func ownProject(_ context: RequestContext, _ name: String) throws -> Response {
        try context.authorize(target: .none)
        let project = JSONValue.string(try context.caller.requireProject())
        return .json(200, .object(JSONObject([(name, JSONValue.object(["tenant_id": project, "project_id": project]))])))
    }

    private func quotaAnswer(_ values: [String: JSONValue], _ project: String) -> Response {
        var members = JSONObject()
        for quota in NetworkQuotas.all { members[quota.name] = values[quota.name] ?? .null }
        return Response.json(200, ["quota": .object(members)])
    }

    private func listQuotas(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let items = try await database.read { try quota.changed($0) }.map { project, limits -> JSONValue in
            var members: JSONObject = ["tenant_id": .string(project), "project_id": .string(project)]
            for quota in NetworkQuotas.all { members[quota.name] = limits[quota.name].map { JSONValue($0) } ?? .null }
            return .object(members)
        }
        let page = try context.listRequest(filters: [])
            .page(of: items, key: "project_id", isReversed: context.isPageReversed())
        return .json(200, ["quotas": .array(page.items)])
    }

    private func resetQuota(_ context: RequestContext) async throws -> Response {
        let project = try quotaProject(context).value(for: "delete_quota")
        return try await context.write(database) { connection in
            try quota.reset(connection, project: project)
            return Change(.empty(204), "quota", project)
        }
    }

    /// Whether a limit below what is used is refused. As in Neutron, it is accepted if a body says nothing about it.
    ///
    /// - Throws: 400 if `force` and `check_limit` contradict each other.
    private static func checksLimits(_ body: JSONObject) throws -> Bool {
        let (checks, isForced) = (body.bool("check_limit"), body.bool("force"))
        guard let checks else { return isForced == false }
        guard checks != isForced else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute quota.force. Value: \(checks). It contradicts 'check_limit', which is \(checks) too.")
        }
        return checks
    }

    private func setQuota(_ context: RequestContext) async throws -> Response {
        let project = try quotaProject(context).value(for: "update_quota")
        let body = context.body["quota"]?.objectValue ?? [:]
        try body.requireRepeated(project, in: ["tenant_id", "project_id"], of: "quota")
        let checks = try NetworkAPI.checksLimits(body)
        return try await context.write(database) { connection in
            for declaration in NetworkQuotas.all {
                let name = declaration.name
                guard let limit = body.int(name) else { continue }
                let used = try quota.state(connection, project: project, declaration).used
                guard !checks || limit < 0 || limit >= used else {
                    throw ResourceError.badRequest(
                        "Quota limit \(limit) of \(name) is below the \(used) in use.", type: "InvalidQuotaValue")
                }
                try quota.set(connection, project: project, declaration, limit: limit)
            }
            let all = try quota.all(connection, project: project)
            return Change(
                answer: quotaAnswer(all.mapValues { JSONValue.integer(Int64($0.limit)) }, project), "quota", project, member: "quota")
        }
    }
}
