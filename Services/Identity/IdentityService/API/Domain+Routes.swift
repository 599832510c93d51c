import Authorization
import Database
import JSON
import Kernel
import WebAPI

extension Identity {
    private static func domainBody(required: Bool) -> RouteBody {
        Bodies.entity(
            "domain",
            [
                Bodies.name(64, required: required), Bodies.enabled, Bodies.description, Bodies.tags, Bodies.options,
                .init("explicit_domain_id", .nullable(.string(min: 1, max: 64, format: nil))),
            ])
    }

    var domainResource: Resource {
        Resource(
            "domain",
            routes: [
                Route(
                    .get, "/v3/domains", action: "identity:list_domains", rule: "rule:cloud_reader or rule:domain_reader",
                    answer: .list(Identity.domains), "List domains", handler: listDomains),
                Route(
                    .post, "/v3/domains", action: "identity:create_domain", rule: "rule:admin_required",
                    body: Identity.domainBody(required: true), status: 201, answer: .one(Identity.domains), "Create a domain",
                    handler: createDomain),
                Route(
                    .get, "/v3/domains/{domain_id}", action: "identity:get_domain",
                    rule: "rule:cloud_reader or domain_id:%(target.domain.id)s or user_domain_id:%(target.domain.id)s",
                    answer: .one(Identity.domains), "Show a domain", handler: showDomain),
                Route(
                    .patch, "/v3/domains/{domain_id}", action: "identity:update_domain", rule: "rule:admin_required",
                    body: Identity.domainBody(required: false), answer: .one(Identity.domains), "Change a domain", handler: updateDomain),
                Route(
                    .delete, "/v3/domains/{domain_id}", action: "identity:delete_domain", rule: "rule:admin_required", status: 204,
                    "Delete a disabled domain with all that is in it", handler: deleteDomain),
            ])
    }

    private func listDomains(_ context: RequestContext) async throws -> Response {
        let scope = try decideList(context, column: "t.id")
        return try await database.read { try Identity.domains.list($0, context, where: scope + ["t.is_domain"]) }
    }

    private func createDomain(_ context: RequestContext) async throws -> Response {
        var body = context.entity("domain")
        let id = body["explicit_domain_id"]?.stringValue ?? newID()
        guard Identity.isIdentifier(id) else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute explicit_domain_id. Value: \(id.prefix(64)). It must be 32 hexadecimal digits.")
        }
        body["explicit_domain_id"] = nil
        let decision = try context.authorize(body, target: .none)
        return try await context.write(database) { connection in
            try insert(connection, project: decision, id: id, ProjectPlace(domainID: nil, parentID: nil))
            return try Identity.domains.change(connection, context, status: 201, id: id)
        }
    }

    static func isIdentifier(_ id: String) -> Bool {
        id.utf8.count == 32 && id.utf8.allSatisfy { Hexadecimal.value(of: $0) != nil }
    }

    private func showDomain(_ context: RequestContext) async throws -> Response {
        let domain = try await decideDomain(context).value
        return try await database.read { connection in
            return try Identity.domains.one(connection, context, where: "t.id = \(domain.id)", id: domain.id)
        }
    }

    private func updateDomain(_ context: RequestContext) async throws -> Response {
        let decision = try await decideDomain(context)
        let body = try context.entity("domain", of: decision.value.id)
        try decision.value.requireMutable("domain", body)
        return try await reduceAccess(context) { connection in
            try update(connection, project: decision, body, isDomain: true)
            return try Identity.domains.change(connection, context, status: 200, id: decision.value.id)
        }
    }

    private func deleteDomain(_ context: RequestContext) async throws -> Response {
        let decision = try await decideDomain(context)
        try decision.value.requireMutable("domain")
        return try await reduceAccess(context) { connection in
            try delete(connection, domain: decision)
            return Change(.empty(), "domain", decision.value.id)
        }
    }
}
