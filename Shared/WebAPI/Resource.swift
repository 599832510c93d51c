import JSON
import Kernel
package import ServiceCatalog

package enum Method: String, Sendable, CaseIterable {
    case get = "GET"
    case head = "HEAD"
    case post = "POST"
    case put = "PUT"
    case patch = "PATCH"
    case delete = "DELETE"
}

/// How a route reads the request's body.
package enum RouteBody: Sendable {
    case none
    /// JSON that fits the schema.
    case json(BodySchema)
    /// Like `json`, and the request may come without a body.
    case optionalJSON(BodySchema)
    /// Any content, streamed by the handler.
    case stream
}

/// One operation of the API: method and path, policy, versions, schema, handler. Everything that is published about it
/// (routing table, 405 responses, OpenAPI, policy reference, authorization tests) is derived from this value.
package struct Route: Sendable {
    package let method: Method
    /// `/servers/{server_id}`; `{name}` stands for one segment.
    package private(set) var path: String
    /// For routes that share a path and are distinguished by the only member of the body: `os-start`.
    package let bodyKey: String?
    /// The policy action: `os_compute_api:servers:show`. Nil for what needs no token.
    package let action: String?
    /// The action's rule unless the operator's policy file has another.
    package let rule: String
    package let versions: VersionRange
    package let body: RouteBody
    package let status: Int
    /// The content of the response, for the OpenAPI document.
    package let answer: RouteAnswer
    package let summary: String
    /// Answers 501 unless an earlier check refuses the request: `unavailable`. Not in the OpenAPI document.
    package let isUnavailable: Bool
    package private(set) var handler: @Sendable (RequestContext) async throws -> Response

    package init(
        _ method: Method, _ path: String, key bodyKey: String? = nil, action: String?, rule: String = "!",
        versions: VersionRange = .all, body: RouteBody = .none, status: Int = 200, answer: RouteAnswer = .undeclared,
        _ summary: String = "", isUnavailable: Bool = false, handler: @escaping @Sendable (RequestContext) async throws -> Response
    ) {
        self.method = method
        self.path = path
        self.bodyKey = bodyKey
        self.action = action
        self.rule = rule
        self.versions = versions
        self.body = body
        self.status = status
        self.answer = answer
        self.summary = summary
        self.isUnavailable = isUnavailable
        self.handler = handler
    }

    /// An action on a resource: `POST …/action` with a body whose only member is the action.
    ///
    /// - Parameters:
    ///   - resource: the path of the resource.
    ///   - key: the name of the member.
    ///   - schema: the member's value.
    package static func action(
        _ resource: String, key: String, action: String, rule: String, versions: VersionRange = .all, schema: BodySchema = .noMembers,
        status: Int = 202, answer: RouteAnswer = .undeclared, _ summary: String, isUnavailable: Bool = false,
        handler: @escaping @Sendable (RequestContext) async throws -> Response
    ) -> Route {
        Route(
            .post, resource + "/action", key: key, action: action, rule: rule, versions: versions, body: .json(.wrapped(key, schema)),
            status: status, answer: answer, summary, isUnavailable: isUnavailable, handler: handler)
    }

    /// A copy with another path, and a check before the handler.
    package func under(_ path: String, check: @escaping @Sendable (RequestContext) throws -> Void) -> Route {
        var route = self
        let handler = handler
        route.path = path
        route.handler = { context in
            try check(context)
            return try await handler(context)
        }
        return route
    }

    /// A route of OpenStack's API that this cloud does not have: 501 with the reason, after the checks.
    ///
    /// - Parameters:
    ///   - reason: a sentence for the caller.
    ///   - checks: the policy decision, and checks that precede 501, such as 404 for a server that does not exist.
    package static func unavailable(
        _ method: Method, _ path: String, key bodyKey: String? = nil, action: String?, rule: String, versions: VersionRange = .all,
        body: RouteBody = .none, _ reason: String, checks: @escaping @Sendable (RequestContext) async throws -> Void
    ) -> Route {
        Route(
            method, path, key: bodyKey, action: action, rule: rule, versions: versions, body: body, "Not available in this cloud",
            isUnavailable: true
        ) { context in
            try await checks(context)
            throw ResourceError(.notImplemented, reason)
        }
    }
}

/// A kind of resource that a service manages, with all its routes.
package struct Resource: Sendable {
    /// `server`
    package let name: String
    package let routes: [Route]

    package init(_ name: String, routes: [Route]) {
        self.name = name
        self.routes = routes
    }
}

/// The public description of a service.
package struct ServiceDescription: Sendable {
    /// Type in the catalog: `compute`.
    package let type: String
    package let title: String
    package let faults: FaultStyle
    package let negotiation: VersionNegotiation?
    /// The base URL that clients see, without a slash at the end: `http://127.0.0.1:8774`.
    package let publicURL: String
    /// The base URL of Identity, where clients get tokens.
    package let identityURL: String
    /// The only actions that another service may call on behalf of a project.
    package let subjectActions: Set<String>
    /// An older first path segment that is an alias of a newer one, at the lowest microversion: `v2` for `v2.1`.
    package let olderPath: CloudService.OlderPath?

    package init(
        type: String, title: String, faults: FaultStyle, negotiation: VersionNegotiation? = nil, publicURL: String,
        identityURL: String? = nil, subjectActions: Set<String> = [], olderPath: CloudService.OlderPath? = nil
    ) {
        self.identityURL = identityURL ?? publicURL
        self.subjectActions = subjectActions
        self.olderPath = olderPath
        self.type = type
        self.title = title
        self.faults = faults
        self.negotiation = negotiation
        self.publicURL = publicURL
    }

    /// The public description of a service of the cloud.
    package init(_ service: CloudService, publicURL: String, identityURL: String? = nil, subjectActions: Set<String> = []) {
        self.init(
            type: service.type, title: service.title, faults: service.faults, negotiation: service.microversions,
            publicURL: publicURL, identityURL: identityURL, subjectActions: subjectActions, olderPath: service.olderPath)
    }
}
