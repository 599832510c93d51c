import Contracts
import Database
import JSON
import Kernel
import PlacementCore

/// Several requests that are decided without claiming anything.
struct SchedulingBatch: Sendable {
    let requests: [SchedulingRequest]
    /// Whether each request takes the earlier decisions into account, and the consumers leave their current hosts; if not, each
    /// one is decided separately.
    let together: Bool
    /// Hosts that no request may use.
    let excluded: Set<String>

    private static let requestsMax = 2000

    /// - Throws: 400 naming the member, its value and the rule.
    init(_ asked: ScheduleTrial) throws {
        guard asked.dryRun else { throw ResourceError.badRequest("Several requests can only be tried: dry_run must be true.") }
        guard asked.requests.count <= SchedulingBatch.requestsMax else {
            throw ResourceError.badRequest("requests must be a list of at most \(SchedulingBatch.requestsMax).")
        }
        let excluded = Set(asked.excludedHosts)
        requests = try asked.requests.map { asked in
            var request = try SchedulingRequest(asked)
            request.excludedHosts.formUnion(excluded)
            return request
        }
        together = asked.together
        self.excluded = excluded
    }
}

extension Placement {
    /// - Returns: an answer to each request, in their order, and the capacity of the hosts in service before and after.
    func dryRun(_ connection: Connection, _ batch: SchedulingBatch, _ started: UInt64) throws -> ScheduleTrial.Answer {
        try self.fleet.refresh(connection, since: started)
        let locations = try ServerLocations(connection, batch.requests)
        var fleet = self.fleet.withFleet { $0 }
        let before = Placement.capacity(fleet, without: [])
        let answers =
            batch.together
            ? placeTogether(&fleet, batch, locations) : batch.requests.map { answer(&fleet, $0, locations.affinity($0)) }
        return .init(
            answers: answers, capacity: .init(before: before, after: Placement.capacity(fleet, without: batch.excluded)))
    }

    private func answer(_ fleet: inout Fleet, _ request: SchedulingRequest, _ affinity: AffinityContext) -> SchedulingAnswer {
        let place = Scheduler.decide(&fleet, request, affinity, random: ambient.random.next())
        var answer = Placement.answer(
            request,
            Outcome(
                host: place.map { fleet.hosts[$0] }, explanation: Explanation(fleet, request, affinity),
                capacity: Scheduler.fitCount(fleet, request, affinity)))
        // Only a single request has them, because there would be too many.
        answer.refusals = nil
        return answer
    }

    /// Decides in the given order. A request without a host is retried as long as others, on which it may depend, still find one.
    private func placeTogether(_ fleet: inout Fleet, _ batch: SchedulingBatch, _ known: ServerLocations) -> [SchedulingAnswer] {
        var locations = known
        for request in batch.requests { locations.move(request.consumerID, to: nil) }
        var answers: [SchedulingAnswer?] = Array(repeating: nil, count: batch.requests.count)
        var waiting = Array(batch.requests.indices)
        var progress = true
        while progress, !waiting.isEmpty {
            progress = false
            for index in waiting {
                let request = batch.requests[index]
                let affinity = locations.affinity(request)
                guard let place = Scheduler.decide(&fleet, request, affinity, random: ambient.random.next()) else { continue }
                let host = fleet.hosts[place]
                answers[index] = SchedulingAnswer(.scheduled, host: host.name, providerID: host.id.description)
                fleet.charge(place, request.resources)
                locations.move(request.consumerID, to: host.id)
                progress = true
            }
            waiting.removeAll { answers[$0] != nil }
        }
        return batch.requests.indices.map { index in
            answers[index] ?? answer(&fleet, batch.requests[index], locations.affinity(batch.requests[index]))
        }
    }

    private static func capacity(_ fleet: Fleet, without excluded: Set<String>) -> ScheduleTrial.Answer.Capacity {
        let (hosts, classes) = fleet.capacity(without: excluded)
        return .init(hosts: hosts, resources: classes.mapValues { .init(capacity: $0.capacity, free: $0.free) })
    }
}
