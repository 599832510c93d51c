package import Database
package import JSON
package import Kernel
import ServiceCatalog
package import WebAPI

/// Calls every declared route of a service as different callers, with a valid path and body, and reports answers that
/// violate the security requirements of all services: 401 without a token, no access to other projects, no writes by
/// readers, and no effect of refused requests.
///
///     let sweep = RouteSweep(api, database: database, parameters: ["server_id": id])
///     #expect(try await sweep.unreachable(["member", "admin"]) == [])
///     #expect(try await sweep.anonymous() == [])
///     #expect(try await sweep.foreigner("other") == [])
///     #expect(try await sweep.reader("reader", except: ["os_compute_api:os-keypairs:create"]) == [])
package struct RouteSweep: Sendable {
    let api: API
    let database: Database?
    package let parameters: [String: String]
    private let bodies: [String: JSONValue]
    private let headers: [(String, String)]

    /// - Parameters:
    ///   - database: if given, its whole content is compared before and after requests that must have no effect.
    ///   - parameters: the value of each path parameter, by name or by `PATH NAME` (`/v3/regions/{id} id`): ids of resources of a
    ///     project that the foreigner is not in and that the reader may read. Other parameters get a random id.
    ///   - bodies: bodies of routes, by `METHOD PATH` or `METHOD PATH KEY`, if the smallest valid body is not sufficient.
    ///   - headers: sent with every request, in addition to the token.
    package init(
        _ api: API, database: Database? = nil, parameters: [String: String] = [:], bodies: [String: JSONValue] = [:],
        headers: [(String, String)] = []
    ) {
        self.api = api
        self.database = database
        self.parameters = parameters
        self.bodies = bodies
        self.headers = headers
    }

    /// Requirements of every service, and the routes or actions exempt from them.
    package struct Duties: Sendable {
        /// Callers who together reach every route with an id.
        package var reachedBy = ["member", "admin"]
        package var unreachable: Set<String> = []
        package var forAll: Set<String> = []
        package var readersOwn: Set<String> = []
        /// Actions allowed to a service without a subject.
        package var servicesOwn: Set<String> = []
        /// Routes whose method suggests a change but that change nothing.
        package var reads: Set<String> = []
        /// Additional allowed texts in the foreigner's refusals.
        package var refusal: String?

        package init(
            unreachable: Set<String> = [], forAll: Set<String> = [], readersOwn: Set<String> = [], servicesOwn: Set<String> = [],
            reads: Set<String> = [], refusal: String? = nil
        ) {
            self.unreachable = unreachable
            self.forAll = forAll
            self.readersOwn = readersOwn
            self.servicesOwn = servicesOwn
            self.reads = reads
            self.refusal = refusal
        }
    }

    /// A security requirement of every service. Letter and number are the class of attack (docs/reliability.md).
    package enum Duty: String, Sendable, CaseIterable {
        case everyIdIsReal = "every id of the sweep is real"
        case nothingWithoutAToken = "S10: nothing without a token"
        case nothingForOtherProjects = "S4: nothing for other projects"
        case readersDoNotWrite = "S10: readers do not write"
        case subjectsAreForServicesOnly = "S6: only services may act on behalf of others"
        case servicesNeedASubject = "S10: a service without a subject has no access to projects' resources"
        case readingIsNoWriting = "S10: a decision about reading does not allow writing"
        case absentAndForeignLookTheSame = "S11: another project's resource looks like a missing one"
    }

    /// - Returns: descriptions of the violations.
    package func findings(_ duty: Duty, _ duties: Duties) async throws -> [String] {
        switch duty {
        case .everyIdIsReal: try await unreachable(duties.reachedBy, except: duties.unreachable)
        case .nothingWithoutAToken: try await anonymous()
        case .nothingForOtherProjects:
            try await foreigner("other", except: duties.forAll).filter { finding in
                duties.refusal.map { !finding.contains($0) } ?? true
            }
        case .readersDoNotWrite: try await reader("reader", except: duties.readersOwn)
        case .subjectsAreForServicesOnly: try await forgedSubjects(["member", "admin"])
        case .servicesNeedASubject: try await servicesAlone("service", except: duties.servicesOwn)
        case .readingIsNoWriting: try await readingWrites("admin", except: duties.reads)
        case .absentAndForeignLookTheSame: try await tellsExistence("other", except: duties.forAll)
        }
    }

    /// A copy with other parameter values and additional headers.
    package func with(
        parameters: [String: String] = [:], bodies: [String: JSONValue] = [:], headers more: [(String, String)] = []
    ) -> RouteSweep {
        RouteSweep(
            api, database: database, parameters: self.parameters.merging(parameters) { $1 },
            bodies: self.bodies.merging(bodies) { $1 }, headers: headers + more)
    }

    /// The response of one route to one caller.
    package struct Outcome: Sendable, Hashable, CustomStringConvertible {
        /// `GET /v3/users/{user_id}`, with the body key if the route has one.
        package let route: String
        package let action: String?
        package let method: Method
        package let hasParameters: Bool
        package let status: Int
        package let message: String

        package var description: String { "\(route) → \(status) \(message.prefix(200))" }
    }

    /// The route's name in findings and exceptions: `POST /servers/{id}/action os-start`.
    package static func name(_ route: Route) -> String {
        "\(route.method.rawValue) \(route.path)" + (route.bodyKey.map { " \($0)" } ?? "")
    }

    var routes: [Route] {
        let order: [Method] = [.get, .head, .post, .put, .patch, .delete]
        return api.resources.flatMap(\.routes).enumerated().sorted { left, right in
            let places = (order.firstIndex(of: left.element.method) ?? 0, order.firstIndex(of: right.element.method) ?? 0)
            return places.0 == places.1 ? left.offset < right.offset : places.0 < places.1
        }.map(\.element)
    }

    // MARK: calls

    /// Calls every route once: reads first, deletes last.
    ///
    /// - Parameter token: nil for none.
    package func outcomes(_ token: String?, where included: (Route) -> Bool = { _ in true }) async throws -> [Outcome] {
        var outcomes: [Outcome] = []
        for route in routes where included(route) { outcomes.append(try await call(route, token)) }
        return outcomes
    }

    private func call(_ route: Route, _ token: String?) async throws -> Outcome {
        let (request, hasParameters) = try request(route, token)
        let response = await api.respond(to: request)
        return Outcome(
            route: RouteSweep.name(route), action: route.action, method: route.method, hasParameters: hasParameters,
            status: response.status, message: String(decoding: response.bytes ?? [], as: UTF8.self))
    }

    /// A request that is valid for the route's declaration, and whether its path has parameters.
    func request(
        _ route: Route, _ token: String?, key: String? = nil, bytes: [UInt8]? = nil
    ) throws -> (request: IncomingRequest, hasParameters: Bool) {
        var path = ""
        var hasParameters = false
        for segment in route.path.split(separator: "/") {
            guard segment.hasPrefix("{") else {
                path += "/" + segment
                continue
            }
            hasParameters = true
            let name = String(segment.dropFirst().dropLast())
            let value = parameters["\(route.path) \(name)"] ?? parameters[name] ?? SystemRandom().uuid().description
            path += "/" + PercentEncoding.encode(value)
        }
        var fields = Headers(headers)
        if let token { fields["x-auth-token"] = token }
        if let key { fields["idempotency-key"] = key }
        if let negotiation = api.service.negotiation {
            let version = route.versions.through ?? negotiation.maximum
            fields["openstack-api-version"] = "\(negotiation.serviceType) \(min(version, negotiation.maximum))"
        }
        let request = try IncomingRequest(
            route.method.rawValue, path.isEmpty ? "/" : path, headers: fields, body: bytes ?? body(route)?.encoded ?? [])
        return (request, hasParameters)
    }

    func body(_ route: Route) -> JSONValue? {
        body(route, version: route.versions.through ?? api.service.negotiation?.maximum ?? Microversion(0, 0))
    }

    private func body(_ route: Route, version: Microversion) -> JSONValue? {
        if let given = bodies[RouteSweep.name(route)] ?? bodies["\(route.method.rawValue) \(route.path)"] { return given }
        switch route.body {
        case .none, .stream: return nil
        case .json(let schema), .optionalJSON(let schema):
            var sample = schema.sample(version: version)
            if let key = route.bodyKey, sample[key] == nil {
                var object = sample.objectValue ?? JSONObject()
                object[key] = .null
                sample = .object(object)
            }
            return sample
        }
    }

    // MARK: requirements of every service

    /// Routes with an action whose response to a missing, empty or forged token is not 401.
    package func anonymous() async throws -> [String] {
        var findings: [String] = []
        let before = try await digest()
        for token in [nil, "forged", "w1.k.x.y"] {
            findings += try await outcomes(token) { $0.action != nil }.filter { $0.status != 401 }.map(\.description)
        }
        return try await findings + changed(since: before)
    }

    /// Routes with ids that allow access by a member of another project.
    ///
    /// - Parameter except: actions that are allowed to everyone (a flavor, a public image).
    package func foreigner(_ token: String, except: Set<String> = []) async throws -> [String] {
        let before = try await digest()
        let findings = try await outcomes(token) {
            $0.action != nil && $0.path.contains("{") && !except.contains($0.action ?? "") && !except.contains(RouteSweep.name($0))
        }.filter { ![403, 404].contains($0.status) }.map(\.description)
        return try await findings + changed(since: before)
    }

    /// Parts of paths that are not secrets of the project that owns the resources of the sweep.
    private static let known: Set<String> = [
        "project_id", "project", "target_id", "domain_id", "key", "tag", "alias", "schema", "namespace", "task_id", "class", "host",
        "network",
    ]

    /// Routes whose response tells a member of another project that a resource exists: status or text differ from those for a
    /// missing resource.
    ///
    /// - Parameter except: actions and routes that are allowed to everyone.
    package func tellsExistence(_ token: String, except: Set<String> = []) async throws -> [String] {
        let secrets = parameters.filter { !RouteSweep.known.contains($0.key) }
        var absent: [String: String] = [:]
        for name in secrets.keys { absent[name] = SystemRandom().uuid().description }
        func isSecret(_ route: Route) -> Bool {
            route.path.split(separator: "/").contains { segment in
                let name = String(segment.dropFirst().dropLast())
                return segment.hasPrefix("{") && (secrets[name] ?? secrets["\(route.path) \(name)"]) != nil
            }
        }
        func answers(_ sweep: RouteSweep, _ names: [String: String]) async throws -> [(route: String, answer: String)] {
            try await sweep.outcomes(token) {
                $0.action != nil && isSecret($0) && !except.contains($0.action ?? "") && !except.contains(RouteSweep.name($0))
            }.map { outcome in
                let words = names.values.sorted { $0.count > $1.count }.reduce(outcome.message) { RouteSweep.masked($1, in: $0) }
                return (outcome.route, "\(outcome.status) \(words.replacing(/req-[0-9a-f-]{36}/, with: "R"))")
            }
        }
        let here = try await answers(self, secrets)
        let nowhere = try await answers(with(parameters: absent), absent)
        return zip(here, nowhere).filter { $0.answer != $1.answer }.map {
            "\($0.route): \($0.answer.prefix(160)) ≠ \($1.answer.prefix(160))"
        }
    }

    /// The text with each `word` that is not part of a longer word replaced by `X`.
    private static func masked(_ word: String, in text: String) -> String {
        func isPart(_ character: Character?) -> Bool { character.map { $0.isLetter || $0.isNumber || $0 == "_" } ?? false }
        var result = text
        for range in text.ranges(of: word).reversed() {
            let before = range.lowerBound == text.startIndex ? nil : text[text.index(before: range.lowerBound)]
            let after = range.upperBound == text.endIndex ? nil : text[range.upperBound]
            if !isPart(before), !isPart(after) { result.replaceSubrange(range, with: "X") }
        }
        return result
    }

    /// Reads with ids that succeed for none of `tokens`, the owner's and an administrator's. Their parameters name no existing
    /// resource, so the other checks would be meaningless for these routes.
    package func unreachable(_ tokens: [String], except: Set<String> = []) async throws -> [String] {
        func missed(_ token: String) async throws -> [Outcome] {
            try await outcomes(token) {
                $0.action != nil && $0.method == .get && $0.path.contains("{") && !except.contains(RouteSweep.name($0))
            }.filter { $0.status >= 300 }
        }
        var findings: [Outcome] = []
        for (index, token) in tokens.enumerated() {
            let next = try await missed(token)
            findings = index == 0 ? next : next.filter { outcome in findings.contains { $0.route == outcome.route } }
        }
        return findings.map(\.description)
    }

    /// Routes that change something and allow it to readers.
    ///
    /// - Parameter except: actions whose method only suggests a change, or that everyone may do to their own resources.
    package func reader(_ token: String, except: Set<String> = []) async throws -> [String] {
        let before = try await digest()
        let findings = try await outcomes(token) {
            $0.action != nil && $0.method != .get && $0.method != .head && !except.contains($0.action ?? "")
                && !except.contains(RouteSweep.name($0))
        }.filter { ![403, 404].contains($0.status) }.map(\.description)
        return try await findings + changed(since: before)
    }

    /// Routes whose handler writes after a decision about reading: each is called as if it were declared with an action that only
    /// reads, so that the handler gets a decision about that action. Also routes that refuse the decision about their own action,
    /// with which they are called afterwards.
    ///
    /// - Parameters:
    ///   - token: of a caller who may read everything.
    ///   - except: routes that change nothing.
    package func readingWrites(_ token: String, except: Set<String> = []) async throws -> [String] {
        let writes = routes.filter { $0.action != nil && $0.method != .get && $0.method != .head }
        let other = RouteSweep(
            api.redeclaring { route in writes.contains { $0.isSame(as: route) } ? route.declared(as: readAction(near: route)) : route },
            database: database, parameters: parameters, bodies: bodies, headers: headers)
        let before = try await digest()
        let outcomes = try await other.outcomes(token) { $0.action != nil && $0.method != .get && $0.method != .head }
        let passed = outcomes.filter { $0.status < 400 && !except.contains($0.route) }.map(\.description)
        // Other responses were refused earlier for another reason.
        let refused = outcomes.filter { $0.status == 500 }
        let isShown = refused.count >= 10 && refused.contains { $0.method == .delete }
        let few = isShown ? [] : ["refused for the decision: \(refused)"]
        let findings = try await passed + few + changed(since: before)
        let own = try await self.outcomes(token) { $0.action != nil && $0.method != .get && $0.method != .head }
        return findings + own.filter { $0.status == 500 }.map { "after a decision about its own action: \($0)" }
    }

    /// The action of reading the same resource, or any of the same service.
    private func readAction(near route: Route) -> String {
        let reads = routes.filter { $0.method == .get && $0.action != nil }
        let near = reads.first { $0.path == route.path } ?? reads.last { route.path.hasPrefix($0.path) } ?? reads.first
        return near?.action ?? ""
    }

    // MARK: effects

    /// A digest of every table's content.
    func digest() async throws -> [String: String] {
        guard let database else { return [:] }
        return try await database.read { connection in
            let tables = try connection.query(
                """
                SELECT c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
                WHERE n.nspname = 'public' AND c.relkind = 'r'
                """
            ).map { try $0.string("name") }
            var digests: [String: String] = [:]
            for table in tables {
                digests[table] = try connection.query(
                    "SELECT coalesce(md5(string_agg(t::text, chr(10) ORDER BY t::text)), '') AS digest FROM \(raw: table) t"
                )[0].string("digest")
            }
            return digests
        }
    }

    func removeAll(except kept: Set<String>) async throws {
        let tables = try await digest().keys.filter { !kept.contains($0) }.sorted()
        guard !tables.isEmpty else { return }
        try await database?.write { connection in
            try connection.script("SET LOCAL session_replication_role = replica")
            for table in tables { try connection.execute("DELETE FROM \(raw: table)") }
        }
    }

    func changed(since before: [String: String]) async throws -> [String] {
        let after = try await digest()
        return after.keys.sorted().filter { after[$0] != before[$0] }.map { "a refused request changed the table \($0)" }
    }
}

extension Route {
    fileprivate func isSame(as other: Route) -> Bool {
        method == other.method && path == other.path && bodyKey == other.bodyKey && versions == other.versions
    }

    fileprivate func declared(as action: String) -> Route {
        Route(
            method, path, key: bodyKey, action: action, rule: rule, versions: versions, body: body, status: status, summary,
            handler: handler)
    }
}

extension BodySchema {
    /// A small valid value.
    package func sample(version: Microversion) -> JSONValue {
        switch self {
        case .any: return "x"
        case .string(let min, let max, let format): return .string(BodySchema.sampleText(min: min, max: max, format))
        case .integer(let min, let max): return .integer(Int64(Swift.min(Swift.max(1, min), max)))
        case .number: return 1
        case .boolean, .strictBoolean: return true
        case .enumeration(let words): return JSONValue(words.first)
        case .array(let element, let min, _): return .array((0..<min).map { _ in element.sample(version: version) })
        case .object(let properties, _):
            return .object(
                JSONObject(
                    properties.filter { $0.required && $0.versions.contains(version) }
                        .map { ($0.name, $0.schema.sample(version: version)) }))
        case .nullable(let inner): return inner.sample(version: version)
        case .oneOf(let choices): return choices.first?.sample(version: version) ?? .null
        }
    }

    private static func sampleText(min: Int, max: Int, _ format: Format?) -> String {
        switch format {
        case .uuid: SystemRandom().uuid().description
        case .ip: "192.0.2.1"
        case .cidr: "192.0.2.0/24"
        case .mac: "02:00:00:00:00:01"
        case .dateTime: "2099-01-31T00:00:00Z"
        case .base64: "eA=="
        case .name, .trimmedName, .hostname, .hostLabel, nil: String(repeating: "x", count: Swift.min(Swift.max(1, min), max))
        }
    }
}
