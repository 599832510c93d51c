import Database
import JSON
import Kernel
import PlacementCore

/// Answers `placement.schedule`: decides in memory, claims in SQL, remembers answer and reasons.
extension Placement {
    /// Claims that failed on full hosts before the fleet is read again.
    private static let attemptsMax = 64
    /// In a larger fleet the record of a success has counts and no hosts.
    private static let hostsNamedMax = 200

    /// What came of a request that was placed, or not.
    private struct Outcome: Sendable {
        var host: HostState?
        var explanation: Explanation
        var room: Int?
    }

    /// - Returns: the answer for the asker.
    /// - Throws: 400 for a request that cannot be read.
    package func schedule(_ body: JSONValue) async throws -> JSONValue {
        let request = try SchedulingRequest(body)
        let started = ambient.time.monotonicNanoseconds()
        let answer: JSONValue
        if request.dryRun {
            answer = try await database.read { try dryRun($0, request, started) }
        } else {
            answer = try await database.write { try place($0, request, started) }
        }
        metrics?.observe(
            "wolke_scheduling_seconds", Double(ambient.time.monotonicNanoseconds() - started) / 1e9,
            [("result", answer["result"]?.stringValue ?? "")])
        return answer
    }

    // MARK: dry run

    private func dryRun(_ connection: Connection, _ request: SchedulingRequest, _ started: UInt64) throws -> JSONValue {
        try fleet.refresh(connection, since: started)
        let around = try surroundings(connection, request)
        let random = ambient.random.next()
        let outcome = fleet.withFleet { fleet in
            let place = Scheduler.decide(&fleet, request, around, random: random)
            return Outcome(
                host: place.map { fleet.hosts[$0] }, explanation: Explanation(fleet, request, around),
                room: Scheduler.room(fleet, request, around))
        }
        var members = Placement.answer(request, outcome).objectValue ?? [:]
        members["dry_run"] = true
        members["operator"] = outcome.explanation.operatorDocument
        return .object(members)
    }

    // MARK: for real

    /// Everything in one transaction: the earlier answer, where the group is, the claim, the new answer.
    private func place(_ connection: Connection, _ request: SchedulingRequest, _ started: UInt64) throws -> JSONValue {
        let consumer = request.consumerID.description
        try connection.query("SELECT pg_advisory_xact_lock(hashtextextended(\(consumer), 11))")
        if let earlier = try earlierAnswer(connection, request) { return earlier }
        if try isGone(connection, consumer) {
            return ["result": "rejected", "filters": [], "operator": [], "message": "The server has been deleted."]
        }
        // Members of a group are placed one after the other.
        if let group = request.group { try connection.query("SELECT pg_advisory_xact_lock(hashtextextended(\(group.id), 12))") }
        // A new operation places anew: what an earlier one took is given back.
        let given = try AllocationStore.remove(connection, consumer: consumer, at: ambient.now) ?? []
        if !given.isEmpty {
            try Placement.announce(connection, given)
            fleet.markStale(given)
        }
        try fleet.refresh(connection)
        let around = try surroundings(connection, request)
        var outcome = try claim(connection, request, around)
        if outcome.host == nil {
            // Never refuse because of what is known too late.
            try fleet.refresh(connection, since: started)
            outcome = try claim(connection, request, around)
        }
        let answer = Placement.answer(request, outcome)
        try remember(connection, request, answer, outcome)
        return answer
    }

    private func earlierAnswer(_ connection: Connection, _ request: SchedulingRequest) throws -> JSONValue? {
        try connection.query(
            """
            SELECT answer FROM scheduling_explanations
            WHERE consumer_id = \(request.consumerID) AND operation_id = \(request.operationID)
            """
        ).first?.json("answer")
    }

    private func isGone(_ connection: Connection, _ consumer: String) throws -> Bool {
        try !connection.query("SELECT 1 AS one FROM servers WHERE id = \(consumer)::uuid AND deleted").isEmpty
    }

    /// Where the servers are that the request names. Allocations say it first: before the server's own row does.
    private func surroundings(_ connection: Connection, _ request: SchedulingRequest) throws -> Surroundings {
        var around = Surroundings()
        if let group = request.group {
            var members = Set(group.members)
            if let id = UUID128(group.id) {
                let rows = try connection.query("SELECT id FROM servers WHERE group_id = \(id) AND NOT deleted")
                members.formUnion(try rows.map { try $0.uuid("id") })
            }
            members.remove(request.consumerID)
            for (_, hosts) in try Placement.hosts(connection, of: Array(members)) {
                for host in hosts { around.members[host, default: 0] += 1 }
            }
        }
        if !request.sameHost.isEmpty {
            around.same = Set(try Placement.hosts(connection, of: request.sameHost).values.joined())
        }
        if !request.differentHost.isEmpty {
            around.different = Set(try Placement.hosts(connection, of: request.differentHost).values.joined())
        }
        return around
    }

    private static func hosts(_ connection: Connection, of servers: [UUID128]) throws -> [UUID128: Set<UUID128>] {
        guard !servers.isEmpty else { return [:] }
        let rows = try connection.query(
            """
            SELECT a.consumer_id AS server, r.id FROM allocations a JOIN resource_providers r ON r.id = a.resource_provider_id
            WHERE a.consumer_id = ANY(\(servers)::uuid[]) AND r.host IS NOT NULL
            UNION SELECT s.id, r.id FROM servers s JOIN resource_providers r ON r.host = s.host
            WHERE s.id = ANY(\(servers)::uuid[]) AND NOT s.deleted
            """)
        var hosts: [UUID128: Set<UUID128>] = [:]
        for row in rows { hosts[try row.uuid("server"), default: []].insert(try row.uuid("id")) }
        return hosts
    }

    // MARK: claim

    private struct Full: Error {
        let state: (inventories: [String: Inventory], used: [String: Int])
    }

    /// Takes the best host that has the room in the database too; on a full one the next best is tried.
    private func claim(_ connection: Connection, _ request: SchedulingRequest, _ around: Surroundings) throws -> Outcome {
        var excluding: Set<Int> = []
        for _ in 0..<Placement.attemptsMax {
            let random = ambient.random.next()
            let tried = excluding
            let (choice, explanation) = fleet.withFleet { fleet -> ((Int, HostState)?, Explanation?) in
                guard let place = Scheduler.decide(&fleet, request, around, excluding: tried, random: random) else {
                    return (nil, Explanation(fleet, request, around))
                }
                let explanation = fleet.hosts.count <= Placement.hostsNamedMax
                    ? Explanation(fleet, request, around) : Explanation(brief: &fleet, request, around)
                fleet.charge(place, request.resources)
                return ((place, fleet.hosts[place]), explanation)
            }
            guard let explanation else { break }
            guard let (place, host) = choice else { return Outcome(host: nil, explanation: explanation) }
            do {
                try connection.savepoint { try take($0, request, host) }
                return Outcome(host: host, explanation: explanation)
            } catch let full as Full {
                excluding.insert(place)
                fleet.withFleet { fleet in
                    guard fleet.place(of: host.id) == place else { return }
                    var known = fleet.hosts[place]
                    (known.inventories, known.used) = full.state
                    fleet.update(known)
                }
            } catch {
                fleet.markStale([host.id.description])
                throw error
            }
        }
        return Outcome(host: nil, explanation: fleet.withFleet { Explanation($0, request, around) })
    }

    /// Locks the host's provider and takes the resources from it.
    private func take(_ connection: Connection, _ request: SchedulingRequest, _ host: HostState) throws {
        let id = host.id.description
        let consumer = request.consumerID.description
        let now = ambient.now
        do { _ = try Placement.touch(connection, provider: id, expected: nil, at: now) } catch let error as ResourceError
        where error.code == .notFound {
            fleet.markStale([""])
            throw Full(state: ([:], [:]))
        }
        var known = host
        known.inventories = try InventoryStore.load(connection, providers: [id])[id] ?? [:]
        known.used = try InventoryStore.usages(connection, providers: [id])[id] ?? [:]
        guard known.fits(request.resources) else { throw Full(state: (known.inventories, known.used)) }
        try connection.execute(
            """
            INSERT INTO consumers (id, project_id, user_id, consumer_type, generation, scheduled, created_at, updated_at)
            VALUES (\(consumer)::uuid, \(request.projectID), \(request.userID), 'INSTANCE', 1, true, \(now), \(now))
            """)
        try AllocationStore.insert(connection, consumer: consumer, provider: id, request.resources, at: now)
        try connection.notify(FleetCache.channel, "\(fleet.origin) \(id)")
    }

    // MARK: answers

    private static func answer(_ request: SchedulingRequest, _ outcome: Outcome) -> JSONValue {
        let explanation = outcome.explanation
        guard let host = outcome.host else {
            return [
                "result": "rejected", "filters": explanation.filtersDocument,
                "message": .string(explanation.message(request)), "nearest": explanation.nearestDocument,
                "operator": explanation.operatorDocument, "fits": 0,
            ]
        }
        var answer: JSONObject = [
            "result": "scheduled", "host": .string(host.name), "resource_provider_id": .string(host.id.description),
            "alternatives": JSONValue(max(0, explanation.passed - 1)), "filters": explanation.filtersDocument,
        ]
        if let room = outcome.room { answer["fits"] = JSONValue(room) }
        return .object(answer)
    }

    private func remember(
        _ connection: Connection, _ request: SchedulingRequest, _ answer: JSONValue, _ outcome: Outcome
    ) throws {
        let explanation: JSONValue = [
            "result": answer["result"] ?? .null, "host": answer["host"] ?? .null,
            "filters": outcome.explanation.filtersDocument, "operator": outcome.explanation.operatorDocument,
            "nearest": outcome.explanation.nearestDocument, "message": answer["message"] ?? .null,
            "resources": .object(JSONObject(request.resources.map { ($0.resourceClass, JSONValue($0.amount)) })),
        ]
        try connection.execute(
            """
            INSERT INTO scheduling_explanations (consumer_id, operation_id, answer, explanation, created_at)
            VALUES (\(request.consumerID), \(request.operationID), \(answer)::jsonb, \(explanation)::jsonb, \(ambient.now))
            """)
    }
}
