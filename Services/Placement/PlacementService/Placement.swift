import Authorization
import Contracts
package import Database
import JSON
package import Kernel
package import PlacementCore
package import Telemetry
import WebAPI

/// The dependencies that routes and consumers share.
package struct Placement: Sendable {
    let database: Database
    let ambient: Ambient
    let fleet: FleetCache
    let metrics: Metrics?

    package init(
        database: Database, ambient: Ambient, weights: SchedulingWeights = SchedulingWeights(),
        hostSilence: Duration = .seconds(60), metrics: Metrics? = nil
    ) {
        self.database = database
        self.ambient = ambient
        self.metrics = metrics
        fleet = FleetCache(ambient: ambient, weights: weights, hostSilence: hostSilence)
    }

    // MARK: names

    /// - Parameter using: whether the transaction will write rows that refer to the classes.
    /// - Throws: 400 naming the unknown resource classes.
    static func requireClasses(_ connection: Connection, _ names: [String], using: Bool = true) throws {
        let unknown = try missing(connection, names, using, standard: StandardResourceClasses.set, table: "resource_classes")
        guard unknown.isEmpty else {
            throw ResourceError.badRequest("No such resource class: \(unknown.joined(separator: ", ")).")
        }
    }

    /// - Parameter using: whether the transaction will write rows that refer to the traits.
    /// - Throws: 400 naming the unknown traits.
    static func requireTraits(_ connection: Connection, _ names: [String], using: Bool = true) throws {
        let unknown = try missing(connection, names, using, standard: StandardTraits.set, table: "traits")
        guard unknown.isEmpty else {
            throw ResourceError.badRequest("No such trait(s): \(unknown.joined(separator: ", ")).")
        }
    }

    private static func missing(
        _ connection: Connection, _ names: [String], _ using: Bool, standard: Set<String>, table: String
    ) throws -> [String] {
        let custom = Set(names).subtracting(standard).sorted()
        if custom.isEmpty { return [] }
        // Locked, so that they cannot be deleted before this transaction has written rows that refer to them.
        let known = try connection.query(
            "SELECT name FROM \(raw: table) WHERE name = ANY(\(custom)::text[]) ORDER BY name \(raw: using ? "FOR SHARE" : "")"
        ).map { try $0.string("name") }
        return custom.filter { !known.contains($0) }
    }

    // MARK: generations

    static func conflict(_ message: String) -> ResourceError {
        .conflict(message, type: "placement.concurrent_update")
    }

    static func noProvider(_ id: String) -> ResourceError {
        .notFound("No resource provider with uuid \(id) found : No resource provider with uuid \(id) found")
    }

    static func generation(_ connection: Connection, provider id: String) throws -> Int {
        guard let row = try connection.query("SELECT generation FROM resource_providers WHERE id = \(id)::uuid").first else {
            throw noProvider(id)
        }
        return try row.int("generation")
    }

    /// Notifies all processes, on commit, that their data of these providers is stale.
    static func announce(_ connection: Connection, _ providers: some Sequence<String>) throws {
        for id in providers { try connection.notify(.placementChanged, ProviderChanges(id)) }
    }
}

extension RequestContext {
    /// A provider's id from the path.
    var providerID: String {
        get throws {
            let text = parameter("uuid")
            guard let uuid = UUID128(text) else { throw Placement.noProvider(text) }
            return uuid.description
        }
    }

    /// The id of the path's provider, with the decision about the route's action.
    ///
    /// - Throws: 403 before 404, so that the answer does not tell which providers exist.
    func authorizedProvider() throws -> Authorized<String> {
        try authorize(target: .none)
        return try authorize(providerID, target: .none)
    }

    /// Adds the headers of GET responses since 1.15.
    func dated(_ response: Response, _ time: Timestamp? = nil) -> Response {
        guard version(atLeast: 1, 15) else { return response }
        var response = response
        response.headers["last-modified"] = HTTPDate.text(time ?? ambient.now)
        response.headers["cache-control"] = "no-cache"
        return response
    }

    /// The same with the time of the last change.
    func dated(_ answer: ResourceKind.Dated) -> Response { dated(answer.response, answer.modified) }

    /// Refuses repeated parameters and parameters that the route does not have in this version.
    func checkQuery(_ allowed: Set<String>, repeatable: Set<String> = []) throws {
        var seen: Set<String> = []
        for (name, _) in query.items {
            guard allowed.contains(name) else { throw ProviderQuery.unexpected(name) }
            guard seen.insert(name).inserted || repeatable.contains(name) else { throw ProviderQuery.repeated(name) }
        }
    }

    var queryGrammar: ProviderQuery.Grammar {
        ProviderQuery.Grammar(
            forbiddenTraits: version(atLeast: 1, 22), anyTraits: version(atLeast: 1, 39),
            repeatedMemberOf: version(atLeast: 1, 24), forbiddenAggregates: version(atLeast: 1, 32))
    }

    /// Parses `resources`, `required`, `member_of` and `in_tree`.
    func providerQuery() throws -> ProviderQuery {
        var result = ProviderQuery()
        for (name, value) in query.items {
            switch name {
            case "resources": result.resources = try ProviderQuery.resources(value)
            case "required": try result.add(required: value, queryGrammar)
            case "member_of": try result.add(memberOf: value, queryGrammar)
            case "in_tree": try result.set(inTree: value)
            case "root_required": try result.set(rootRequired: value)
            default: break
            }
        }
        return result
    }
}
