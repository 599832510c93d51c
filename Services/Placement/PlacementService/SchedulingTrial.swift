import Database
import JSON
import Kernel
import PlacementCore

/// Several requests to be tried, without claiming anything.
struct SchedulingTrial: Sendable {
    let requests: [SchedulingRequest]
    /// Whether each request finds taken what the earlier ones got, and the consumers leave where they are now; if
    /// not, each one is tried alone.
    let together: Bool
    /// Hosts that none of them may have.
    let excluded: Set<String>

    private static let requestsMax = 2000

    /// - Throws: 400 that names the member, its value and the rule.
    init(_ body: JSONValue) throws {
        guard body["dry_run"]?.boolValue == true else { throw ResourceError.badRequest("Several requests can only be tried: dry_run must be true.") }
        guard let bodies = body["requests"]?.arrayValue, bodies.count <= SchedulingTrial.requestsMax else {
            throw ResourceError.badRequest("requests must be a list of at most \(SchedulingTrial.requestsMax).")
        }
        let excluded = Set((body["exclude_hosts"]?.arrayValue ?? []).compactMap(\.stringValue))
        requests = try bodies.map { body in
            var request = try SchedulingRequest(body)
            request.excludedHosts.formUnion(excluded)
            return request
        }
        together = body["together"]?.boolValue ?? false
        self.excluded = excluded
    }
}

extension Placement {
    /// - Returns: an answer to each request, in their order, and the capacity of the hosts in service before and after.
    func dryRun(_ connection: Connection, _ trial: SchedulingTrial, _ started: UInt64) throws -> JSONValue {
        try self.fleet.refresh(connection, since: started)
        let neighbourhood = try Neighbourhood(connection, trial.requests)
        var fleet = self.fleet.withFleet { $0 }
        let before = Placement.capacity(fleet, without: [])
        let answers = trial.together
            ? placeTogether(&fleet, trial, neighbourhood) : trial.requests.map { answer(&fleet, $0, neighbourhood.around($0)) }
        return [
            "dry_run": true, "answers": .array(answers),
            "capacity": ["before": before, "after": Placement.capacity(fleet, without: trial.excluded)],
        ]
    }

    private func answer(_ fleet: inout Fleet, _ request: SchedulingRequest, _ around: Surroundings) -> JSONValue {
        let place = Scheduler.decide(&fleet, request, around, random: ambient.random.next())
        var members = Placement.answer(
            request,
            Outcome(
                host: place.map { fleet.hosts[$0] }, explanation: Explanation(fleet, request, around),
                room: Scheduler.room(fleet, request, around))
        ).objectValue ?? [:]
        // One request alone has them; for many they would be too many.
        members["operator"] = nil
        return .object(members)
    }

    /// In the given order. What found no place is tried again while others that it depends on still find theirs.
    private func placeTogether(_ fleet: inout Fleet, _ trial: SchedulingTrial, _ known: Neighbourhood) -> [JSONValue] {
        var neighbourhood = known
        for request in trial.requests { neighbourhood.move(request.consumerID, to: nil) }
        var answers = Array(repeating: JSONValue.null, count: trial.requests.count)
        var waiting = Array(trial.requests.indices)
        var progress = true
        while progress, !waiting.isEmpty {
            progress = false
            for index in waiting {
                let request = trial.requests[index]
                let around = neighbourhood.around(request)
                guard let place = Scheduler.decide(&fleet, request, around, random: ambient.random.next()) else { continue }
                let host = fleet.hosts[place]
                answers[index] = [
                    "result": "scheduled", "host": .string(host.name), "resource_provider_id": .string(host.id.description),
                ]
                fleet.charge(place, request.resources)
                neighbourhood.move(request.consumerID, to: host.id)
                progress = true
            }
            waiting.removeAll { !answers[$0].isNull }
        }
        for index in waiting {
            answers[index] = answer(&fleet, trial.requests[index], neighbourhood.around(trial.requests[index]))
        }
        return answers
    }

    private static func capacity(_ fleet: Fleet, without excluded: Set<String>) -> JSONValue {
        let (hosts, classes) = fleet.capacity(without: excluded)
        return [
            "hosts": JSONValue(hosts),
            "resources": .object(
                JSONObject(
                    classes.sorted { $0.key < $1.key }.map {
                        ($0.key, ["capacity": JSONValue($0.value.capacity), "free": JSONValue($0.value.free)])
                    })),
        ]
    }
}
