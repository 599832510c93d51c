import Contracts
import Database
package import JSON
import Kernel
import PlacementCore
import Telemetry
import WebAPI

/// Answers `placement.schedule`: decides in memory, claims in SQL, and stores answer and reasons.
extension Placement {
    /// Number of claims that may fail on full hosts before the fleet is read again.
    private static let attemptsMax = 64
    /// In a larger fleet the record of a successful decision has counts but no hosts.
    private static let hostsNamedMax = 200

    /// The outcome of a request.
    struct Outcome: Sendable {
        var host: HostState?
        var explanation: Explanation
        var capacity: Int?
    }

    /// - Parameter body: a `ScheduleServer` or a `ScheduleTrial`.
    /// - Returns: the answer.
    /// - Throws: 400 for an invalid request.
    package func schedule(_ body: JSONValue) async throws -> JSONValue {
        let started = ambient.time.monotonicNanoseconds()
        if body[ScheduleTrial.mark] != nil {
            let batch = try SchedulingBatch(try SchedulingRequest.read(body))
            return try JSONValue(encoding: try await database.read { try dryRun($0, batch, started) })
        }
        let request = try SchedulingRequest(document: body)
        let answer: JSONValue
        if request.dryRun {
            answer = try JSONValue(encoding: try await database.read { try dryRun($0, request, started) })
        } else {
            answer = try await claim(request, started)
        }
        metrics?.observe(
            "wolke_scheduling_seconds", Double(ambient.time.monotonicNanoseconds() - started) / 1e9,
            [("result", answer["result"]?.stringValue ?? "")])
        return answer
    }

    // MARK: dry run

    private func dryRun(_ connection: Connection, _ request: SchedulingRequest, _ started: UInt64) throws -> SchedulingAnswer {
        try fleet.refresh(connection, since: started)
        let affinity = try ServerLocations(connection, [request]).affinity(request)
        let random = ambient.random.next()
        let outcome = fleet.withFleet { fleet in
            let place = Scheduler.decide(&fleet, request, affinity, random: random)
            return Outcome(
                host: place.map { fleet.hosts[$0] }, explanation: Explanation(fleet, request, affinity),
                capacity: Scheduler.fitCount(fleet, request, affinity))
        }
        var answer = Placement.answer(request, outcome)
        answer.dryRun = true
        answer.refusals = outcome.explanation.refusals
        return answer
    }

    // MARK: claims

    private func claim(_ request: SchedulingRequest, _ started: UInt64) async throws -> JSONValue {
        let changedProviders = ChangedProviders()
        do {
            let answer = try await database.write { try place($0, request, started, changedProviders) }
            fleet.tell(changedProviders.all)
            return answer
        } catch {
            // The allocation counted in memory was not committed, or its outcome is unknown.
            fleet.markStale(changedProviders.all)
            throw error
        }
    }

    /// Does everything in one transaction: looks up an earlier answer and the group's hosts, claims, and stores the new answer.
    private func place(
        _ connection: Connection, _ request: SchedulingRequest, _ started: UInt64, _ changedProviders: ChangedProviders
    ) throws -> JSONValue {
        let consumer = request.consumerID.description
        // Not empty if the transaction is retried.
        fleet.markStale(changedProviders.all)
        // Repetitions of one request, and members of one group, are serialized.
        let group: SQL = request.group.map { ", pg_advisory_xact_lock(hashtextextended(\($0.id), 12))" } ?? ""
        try connection.query("SELECT pg_advisory_xact_lock(hashtextextended(\(consumer), 11))\(group)")
        let before = try connection.query(
            """
            SELECT (SELECT answer FROM scheduling_explanations WHERE consumer_id = \(consumer)::uuid
                    AND operation_id = \(request.operationID)) AS answer,
                EXISTS (SELECT 1 FROM published_servers WHERE id = \(consumer)::uuid AND deleted) AS gone,
                EXISTS (SELECT 1 FROM consumers WHERE id = \(consumer)::uuid) AS placed
            """)[0]
        if let earlier = try before.optionalJSON("answer") { return earlier }
        if try before.bool("gone") {
            return try JSONValue(
                encoding: SchedulingAnswer(.rejected, message: "The server has been deleted.", filters: [], refusals: []))
        }
        if try before.bool("placed") {
            // A new operation decides again; the claim of an earlier one is released.
            let given = try AllocationStore.remove(connection, consumer: consumer, at: ambient.now) ?? []
            changedProviders.add(given)
            fleet.markStale(given)
        }
        try fleet.refresh(connection)
        let affinity = try ServerLocations(connection, [request]).affinity(request)
        if let answer = try claim(connection, request, affinity, changedProviders) { return answer }
        // The cached fleet may be stale, so a refusal requires a fresh one.
        try fleet.refresh(connection, since: started)
        if let answer = try claim(connection, request, affinity, changedProviders) { return answer }
        let explanation = fleet.withFleet { Explanation($0, request, affinity) }
        let outcome = Outcome(host: nil, explanation: explanation)
        let answer = try JSONValue(encoding: Placement.answer(request, outcome))
        try connection.execute(try Placement.record(request, answer, outcome, at: ambient.now))
        return answer
    }

    // MARK: claim

    private struct Full: Error {
        let state: (inventories: [String: Inventory], used: [String: Int])
    }

    /// Claims the best host that also has enough capacity in the database; if a host is full, the next best one is tried.
    ///
    /// - Returns: the answer; nil if no host has enough capacity.
    private func claim(
        _ connection: Connection, _ request: SchedulingRequest, _ affinity: AffinityContext, _ changedProviders: ChangedProviders
    ) throws -> JSONValue? {
        var excluding: Set<Int> = []
        for _ in 0..<Placement.attemptsMax {
            let random = ambient.random.next()
            let tried = excluding
            let choice = fleet.withFleet { fleet -> (place: Int, outcome: Outcome, host: HostState)? in
                guard let place = Scheduler.decide(&fleet, request, affinity, excluding: tried, random: random) else { return nil }
                let explanation =
                    fleet.hosts.count <= Placement.hostsNamedMax
                    ? Explanation(fleet, request, affinity) : Explanation(brief: &fleet, request, affinity)
                let host = fleet.hosts[place]
                fleet.charge(place, request.resources)
                return (place, Outcome(host: host, explanation: explanation), host)
            }
            guard let choice else { return nil }
            let answer = try JSONValue(encoding: Placement.answer(request, choice.outcome))
            changedProviders.add([choice.host.id.description])
            do {
                let record = try Placement.record(request, answer, choice.outcome, at: ambient.now)
                try connection.savepoint { try take($0, request, choice.host, record) }
                return answer
            } catch let full as Full {
                excluding.insert(choice.place)
                fleet.withFleet { fleet in
                    guard fleet.place(of: choice.host.id) == choice.place else { return }
                    var known = fleet.hosts[choice.place]
                    (known.inventories, known.used) = full.state
                    fleet.update(known)
                }
            }
        }
        return nil
    }

    /// Locks the host's provider, checks its actual free capacity, and claims.
    private func take(_ connection: Connection, _ request: SchedulingRequest, _ host: HostState, _ record: SQL) throws {
        let id = host.id.description
        let consumer = request.consumerID.description
        let now = ambient.now
        let locked = try connection.execute(
            """
            UPDATE resource_providers SET generation = generation + 1, updated_at = \(now)
            WHERE id = \(id)::uuid AND host = \(host.name)
                AND NOT EXISTS (SELECT 1 FROM published_hosts s WHERE s.host = \(host.name) AND (NOT s.enabled OR s.forced_down))
            """)
        guard locked == 1 else {
            fleet.markStale([""])
            throw Full(state: ([:], [:]))
        }
        var known = host
        (known.inventories, known.used) = try InventoryStore.state(connection, provider: id)
        guard known.fits(request.resources) else { throw Full(state: (known.inventories, known.used)) }
        try connection.execute(
            """
            WITH consumer AS (
                INSERT INTO consumers (\(AllocationStore.consumerColumns))
                VALUES (\(consumer)::uuid, \(request.projectID), \(request.userID), 'INSTANCE', 1, true, \(ambient.databaseNow), \(now))),
            taken AS (
                INSERT INTO allocations (\(AllocationStore.columns))
                SELECT \(consumer)::uuid, \(id)::uuid, c, n, \(now), \(now)
                FROM unnest(\(request.resources.map(\.resourceClass))::text[], \(request.resources.map(\.amount))::bigint[]) AS need (c, n))
            \(record)
            """)
    }

    // MARK: answers

    static func answer(_ request: SchedulingRequest, _ outcome: Outcome) -> SchedulingAnswer {
        let explanation = outcome.explanation
        guard let host = outcome.host else {
            return SchedulingAnswer(
                .rejected, fits: 0, message: explanation.message(request), filters: explanation.filters, nearest: explanation.nearestFit,
                refusals: explanation.refusals)
        }
        return SchedulingAnswer(
            .scheduled, host: host.name, providerID: host.id.description, alternatives: max(0, explanation.passed - 1),
            fits: outcome.capacity,
            filters: explanation.filters)
    }

    /// The statement that stores answer and reasons.
    private static func record(
        _ request: SchedulingRequest, _ answer: JSONValue, _ outcome: Outcome, at now: Timestamp
    ) throws -> SQL {
        let explanation: JSONValue = [
            "result": answer["result"] ?? .null, "host": answer["host"] ?? .null, "filters": answer["filters"] ?? [],
            "operator": try JSONValue(encoding: outcome.explanation.refusals), "nearest": answer["nearest"] ?? .null,
            "message": answer["message"] ?? .null,
            "resources": .object(JSONObject(request.resources.map { ($0.resourceClass, JSONValue($0.amount)) })),
        ]
        let row: Changes = [
            "consumer_id": "\(request.consumerID)", "operation_id": "\(request.operationID)", "answer": "\(answer)::jsonb",
            "explanation": "\(explanation)::jsonb",
        ]
        return row.insertion("scheduling_explanations", at: now, isUpdated: false)
    }
}
