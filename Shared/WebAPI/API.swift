package import Authorization
package import Database
import JSON
package import Kernel
package import Logging
import NIOCore
import ServiceCatalog
package import Telemetry

/// A service's whole API: resources, policy and the request pipeline. Answers requests with or without HTTP.
package struct API: Sendable {
    package let service: ServiceDescription
    package private(set) var resources: [Resource]
    package let policy: Policy
    private var router: RequestRouter
    let authenticator: any Authenticating
    private let database: Database?
    let ambient: Ambient
    private let log: Logger
    private let metrics: Metrics
    /// The memory budget for request bodies.
    package var bodies = BodyBudget()
    /// Decides which requests run now and which wait.
    package var scheduler: RequestScheduler

    /// - Parameters:
    ///   - policyOverrides: rules of the operator's policy file.
    ///   - database: where responses are stored under their `Idempotency-Key`.
    /// - Throws: 400 for a rule that cannot be read.
    package init(
        service: ServiceDescription, resources: [Resource], rules: [String: String] = [:],
        policyOverrides: [String: String] = [:], database: Database? = nil, authenticator: any Authenticating,
        ambient: Ambient, log: Logger, metrics: Metrics
    ) throws {
        self.database = database
        self.service = service
        self.resources = resources
        self.authenticator = authenticator
        self.ambient = ambient
        self.log = log
        self.metrics = metrics
        // Scheduling of requests uses real time, not the injected clock.
        scheduler = RequestScheduler(time: SystemTime(), metrics: metrics)
        var defaults = rules
        for route in resources.flatMap(\.routes) {
            if let action = route.action, defaults[action] == nil { defaults[action] = route.rule }
        }
        policy = try Policy(defaults: defaults, overrides: policyOverrides)
        router = RequestRouter(resources.flatMap(\.routes))
    }

    /// A copy with routes changed by `change`; the policy of actions stays the same.
    package func redeclaring(_ change: (Route) -> Route) -> API {
        var api = self
        api.resources = resources.map { Resource($0.name, routes: $0.routes.map(change)) }
        api.router = RequestRouter(api.resources.flatMap(\.routes))
        return api
    }

    // MARK: pipeline

    /// Answers a request; never throws: every failure becomes a response in the service's own form.
    package func respond(to request: IncomingRequest) async -> Response {
        let requestID = "req-" + ambient.newUUID().description
        let started = ambient.time.monotonicNanoseconds()
        var label = "unrouted"
        var response = await RequestScope.$current.withValue(requestID) {
            await DatabaseScope.$current.withValue(.request(request.presence, source: request.source)) {
                await answer(request, requestID: requestID, label: &label)
            }
        }
        response.headers["x-openstack-request-id"] = requestID
        if service.type == "compute" { response.headers["x-compute-request-id"] = requestID }
        if request.method == "HEAD" { response.body = .none }
        let seconds = Double(ambient.time.monotonicNanoseconds() - started) / 1e9
        metrics.observe(
            "wolke_http_request_seconds", seconds,
            [("method", Method(rawValue: request.method)?.rawValue ?? "other"), ("route", label), ("status", String(response.status))])
        return response
    }

    private func answer(_ request: IncomingRequest, requestID: String, label: inout String) async -> Response {
        var version = service.negotiation?.minimum ?? Microversion(0, 0)
        var response: Response
        do {
            var segments = try API.segments(request.path)
            let isOlder = service.olderPath.map { segments.count > 1 && segments[0] == $0.older } ?? false
            if isOlder, let newer = service.olderPath?.newer { segments[0] = newer }
            // A path with a trailing slash lacks its last id; some services treat it as the list's path.
            guard !service.faults.refusesTrailingSlash || segments.count < 2 || !request.path.hasSuffix("/") else {
                throw ResourceError.notFound("The resource could not be found.")
            }
            let (routes, values) = try route(request.method, segments)
            label = routes[0].path
            let caller = try await authenticate(request, routes)
            // The legacy API had no microversions: the version header is ignored, as in Nova.
            if !isOlder { version = try service.negotiation?.negotiate(request.headers) ?? version }
            let lane = caller.databaseLane ?? DatabaseScope.current.lane
            response = try await DatabaseScope.$current.withValue(DatabaseScope.current.of(lane)) {
                try await run(request, routes, values, caller, version, requestID)
            }
        } catch {
            response = failure(error, requestID: requestID, request)
        }
        if let negotiation = service.negotiation {
            response.headers["openstack-api-version"] = "\(negotiation.serviceType) \(version)"
            var vary = "OpenStack-API-Version"
            if let legacy = negotiation.legacyHeader {
                response.headers[legacy] = version.description
                if negotiation.announcesRange {
                    response.headers[legacy.replacing("api-version", with: "api-minimum-version")] = negotiation.minimum.description
                    response.headers[legacy.replacing("api-version", with: "api-maximum-version")] = negotiation.maximum.description
                }
                vary += ", " + legacy
            }
            response.headers["vary"] = vary
        }
        return response
    }

    private static func segments(_ path: String) throws -> [String] {
        guard path.utf8.count <= Limits.requestTargetBytesMax else {
            throw ResourceError.badRequest("The request target is too long.")
        }
        return try path.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: true).map { segment in
            let text = Substring(segment)
            // The parser of HTTP has refused control characters; what is not escaped needs no decoding.
            let isPlain = segment.allSatisfy { $0 < 0x80 && $0 > 0x20 && $0 != UInt8(ascii: "%") }
            return isPlain ? String(text) : try Query.decode(text, plusIsSpace: false)
        }
    }

    private func route(_ method: String, _ segments: [String]) throws -> ([Route], [String]) {
        switch router.match(method, segments) {
        case .routes(let routes, let segments): return (routes, segments)
        case .notFound: throw ResourceError.notFound("The resource could not be found.")
        case .methodNotAllowed(let allowed):
            throw MethodNotAllowed(allowed: allowed.map(\.rawValue).joined(separator: ", "))
        }
    }

    private struct MethodNotAllowed: Error {
        let allowed: String
    }

    /// - Parameter routes: the routes that the request may be for; the body selects one of them.
    private func authenticate(_ request: IncomingRequest, _ routes: [Route]) async throws -> AdmittedCaller {
        guard routes.contains(where: { $0.action != nil }) else { return AdmittedCaller(nil) }
        guard let token = request.headers["x-auth-token"], !token.isEmpty else {
            throw ResourceError(.unauthorized, "The request you have made requires authentication.")
        }
        let caller = try await caller(token, request.presence)
        try AccessRules.check(caller.accessRules, service: service.type, method: request.method, path: request.path)
        return try await subject(of: caller, request, routes)
    }

    private func caller(_ token: String, _ presence: ClientPresence?) async throws -> Caller {
        if let kept = try authenticator.keptCaller(token: token) { return kept }
        // An unverified token may be anything, so its validation counts against the source address.
        guard case .tenant(let source) = DatabaseScope.current.lane else { return try await authenticator.caller(token: token) }
        return try await scheduler.run(of: source, presence: presence) { try await authenticator.caller(token: token) }
    }

    private func run(
        _ request: IncomingRequest, _ candidates: [Route], _ segments: [String], _ admitted: AdmittedCaller,
        _ version: Microversion, _ requestID: String
    ) async throws -> Response {
        let fitting = candidates.filter { $0.versions.contains(version) }
        guard !fitting.isEmpty else { throw ResourceError.notFound("The resource could not be found.") }
        // The body counts until the response is ready, because a waiting request is held in memory too.
        let received = try await receive(fitting[0], request, owner: admitted.owner)
        defer { withExtendedLifetime(received.share) {} }
        let response = try await seated(fitting[0]) {
            let (route, document) = try API.choose(fitting, received.bytes)
            let caller = try admitted.caller(for: route)
            let body = try API.validated(document, route, version)
            let decision = RequestContext.Decision()
            let context = RequestContext(
                service: service, route: route, requestID: requestID, method: request.method, path: request.path,
                parameters: RequestRouter.parameters(route, segments), query: request.query, headers: request.headers, body: body,
                stream: request.body, version: version, ambient: ambient, log: log, verifiedCaller: caller, policy: policy,
                decision: decision, bodyDigest: document == nil ? "" : received.bytes.map(RequestContext.digest) ?? "")
            let response = try await handle(context)
            guard route.action == nil || decision.wasMade else {
                throw ResourceError.internalError("\(route.method.rawValue) \(route.path) answered without a policy decision")
            }
            return response
        }
        if fitting[0].action != nil, fitting[0].method == .get, response.status == 200, let name = request.query.ignoredPaging {
            throw ResourceError.badRequest("Invalid query parameter '\(name)': this answer does not come in pages.")
        }
        return response
    }

    /// Waits for the caller's turn. A streamed body is received without occupying a slot.
    private func seated(_ route: Route, _ work: () async throws -> Response) async throws -> Response {
        if case .stream = route.body { return try await work() }
        guard case .tenant(let project) = DatabaseScope.current.lane else { return try await work() }
        return try await scheduler.run(of: project, presence: DatabaseScope.current.presence, work)
    }

    private func handle(_ context: RequestContext) async throws -> Response {
        do { return try await context.route.handler(context) } catch let error as DatabaseError where error.isRefusedInput {
            // The route's own validation should have refused the value with a better message.
            log.warning(
                "the database refused a value of a request",
                metadata: [
                    "method": "\(context.method)", "path": "\(context.route.path)", "sqlstate": "\(error.sqlState)",
                    "statement": "\(error.statement?.prefix(400) ?? "")",
                ])
            throw context.refusal(of: error)
        } catch let error as ResourceError
            where context.method == "POST" && error.code != .unauthorized && error.code != .forbidden
        {
            guard let database, !error.isRetryable, let earlier = try await context.earlierAnswer(database) else { throw error }
            return earlier
        }
    }

    /// The received body and its share of the memory budget; nil if there is none or the handler streams it.
    private func receive(
        _ route: Route, _ request: IncomingRequest, owner: String?
    ) async throws -> (bytes: [UInt8]?, share: BodyBudget.Share?) {
        switch route.body {
        case .none, .stream: return (nil, nil)
        case .json, .optionalJSON: break
        }
        let share = owner.map { bodies.share(of: $0) } ?? bodies.share(ofAnonymous: request.source)
        let bytes = try await collect(
            request, share, bytesMax: owner == nil ? Limits.anonymousBodyBytesMax : Limits.requestBodyBytesMax)
        return (bytes, share)
    }

    /// The route that the body selects, with the body; nil if there is none.
    ///
    /// - Parameter bytes: nil if the routes' body is not a document.
    private static func choose(_ routes: [Route], _ bytes: [UInt8]?) throws -> (Route, JSONValue?) {
        guard let bytes else { return (routes[0], nil) }
        if bytes.isEmpty {
            guard case .optionalJSON = routes[0].body else {
                throw ResourceError.badRequest("The request needs a JSON body.")
            }
            return (routes[0], nil)
        }
        let json: JSONValue
        do { json = try JSONValue.parse(bytes) } catch {
            throw ResourceError.badRequest("The request body is not valid JSON: \(error).")
        }
        return (try API.select(routes, json), json)
    }

    private static func validated(_ document: JSONValue?, _ route: Route, _ version: Microversion) throws -> JSONValue {
        guard let document else { return .null }
        switch route.body {
        case .none, .stream: return .null
        case .json(let schema), .optionalJSON(let schema): return try schema.validate(document, version: version)
        }
    }

    private static func select(_ routes: [Route], _ body: JSONValue) throws -> Route {
        guard routes.contains(where: { $0.bodyKey != nil }) else { return routes[0] }
        guard let object = body.objectValue, object.count >= 1 else {
            let keys = routes.compactMap(\.bodyKey)
            throw ResourceError.badRequest(
                "The request body must be an object with one of these members: \(keys.prefix(20).joined(separator: ", ")).")
        }
        if let route = routes.first(where: { $0.bodyKey.map { object[$0] != nil } ?? false }) { return route }
        throw ResourceError.badRequest("There is no such action: \(object.names.joined(separator: ", ").prefix(100))")
    }

    /// Reads the whole body. The server enforces a minimum rate; this enforces the total time.
    private func collect(_ request: IncomingRequest, _ share: BodyBudget.Share, bytesMax: Int) async throws -> [UInt8] {
        let tooLarge = ResourceError(.tooLarge, "The request body is larger than \(bytesMax) bytes.")
        if let announced = request.headers["content-length"].flatMap({ Int($0) }), announced > bytesMax { throw tooLarge }
        let started = ambient.time.monotonicNanoseconds()
        var bytes: [UInt8] = []
        for try await buffer in request.body {
            guard bytes.count + buffer.readableBytes <= bytesMax else { throw tooLarge }
            guard share.take(buffer.readableBytes) else { throw Overload() }
            guard ambient.time.monotonicNanoseconds() - started < Limits.requestBodyNanosecondsMax else {
                throw ResourceError(.requestTimeout, "The request body did not arrive in time.")
            }
            bytes.append(contentsOf: buffer.readableBytesView)
        }
        return bytes
    }

    /// Refused to protect the process. The client may retry; not logged individually.
    private struct Overload: Error {}

    // MARK: failures

    /// The answer to a request that could not be read far enough to be routed.
    ///
    /// - Parameter accept: the media types that the client accepts, if its request could be parsed so far.
    func refusal(_ error: ResourceError, accept: String? = "application/json") -> Response {
        let requestID = "req-" + ambient.newUUID().description
        var response = service.faults.response(error, requestID: requestID, versions: service.negotiation, accept: accept)
        response.headers["x-openstack-request-id"] = requestID
        return response
    }

    private func failure(_ error: any Error, requestID: String, _ request: IncomingRequest) -> Response {
        switch error {
        case let error as MethodNotAllowed:
            var response = service.faults.response(
                ResourceError(.methodNotAllowed, "The method \(request.method) is not allowed for this resource."),
                requestID: requestID, versions: service.negotiation, accept: request.headers["accept"])
            response.headers["allow"] = error.allowed
            return response
        case is Overload:
            metrics.increment(
                "wolke_http_bodies_refused_total", help: "Requests refused because other requests' bodies take too much memory.")
            return service.faults.response(
                ResourceError(.unavailable, "Too many large requests are in progress; try again.", retryAfter: 1),
                requestID: requestID, versions: service.negotiation, accept: request.headers["accept"])
        case let error as ResourceError: return fault(error, requestID, request)
        case let error as DatabaseError:
            return fault(error.resourceError, requestID, request)
        // The client has disconnected and does not read this response.
        case is ClientGone: return service.faults.response(.unavailable("the client left"), requestID: requestID, versions: nil)
        case is CancellationError: return fault(.unavailable("the request was cancelled"), requestID, request)
        default: return fault(.internalError("\(error)"), requestID, request)
        }
    }

    private func fault(_ error: ResourceError, _ requestID: String, _ request: IncomingRequest) -> Response {
        if error.code == .internalError || error.code == .unavailable {
            log.error(
                "request failed",
                metadata: [
                    "method": "\(request.method)", "path": "\(request.path)", "status": "\(error.code.rawValue)",
                    "error": "\(error.context ?? error.message)",
                ])
        }
        var response = service.faults.response(
            error, requestID: requestID, versions: service.negotiation, accept: request.headers["accept"])
        if error.code == .unauthorized { response.headers["www-authenticate"] = "Keystone uri=\"\(service.identityURL)\"" }
        return response
    }
}

/// Access rules of application credentials: what a token with them may call.
enum AccessRules {
    /// - Throws: 401 as keystonemiddleware does when no rule fits.
    static func check(_ rules: JSONValue?, service: String, method: String, path: String) throws {
        guard let rules = rules?.arrayValue, !rules.isEmpty else { return }
        let fits = rules.contains { rule in
            rule["service"]?.stringValue == service && rule["method"]?.stringValue?.uppercased() == method
                && matches(rule["path"]?.stringValue ?? "", path)
        }
        guard fits else { throw ResourceError(.unauthorized, "The request is outside the access rules of the application credential.") }
    }

    /// `*` and `{name}` stand for one segment, `**` for any number. Takes time proportional to the product of the two lengths for any
    /// pattern, because tenants choose the pattern.
    static func matches(_ pattern: String, _ path: String) -> Bool {
        let pattern = pattern.split(separator: "/")
        let path = path.split(separator: "/")
        // Whether the pattern so far matches the first n segments of the path.
        var fits = [true] + Array(repeating: false, count: path.count)
        for part in pattern {
            var next = Array(repeating: false, count: path.count + 1)
            for count in 0...path.count {
                if part == "**" {
                    next[count] = fits[count] || (count > 0 && next[count - 1])
                } else if count > 0, fits[count - 1] {
                    next[count] = part == "*" || part.hasPrefix("{") || part == path[count - 1]
                }
            }
            fits = next
        }
        return fits[path.count]
    }
}
