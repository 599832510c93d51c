import Kernel

/// Chooses a host for a request.
package enum Scheduler {
    /// The host with the highest score that passes every filter; nil if there is none.
    ///
    /// - Parameters:
    ///   - excluding: indexes of hosts on which a claim has just failed.
    ///   - random: breaks ties between hosts with equal scores.
    package static func decide(
        _ fleet: inout Fleet, _ request: SchedulingRequest, _ affinity: AffinityContext, excluding: Set<Int> = [],
        random: UInt64
    ) -> Int? {
        guard !fleet.hosts.isEmpty else { return nil }
        let prepared = fleet.prepared(request, affinity)
        return fleet.withShape(prepared) { shape, fleet in
            if let few = candidates(fleet, request, affinity) {
                let fitting = few.filter { place in
                    shape.contains(place) && !excluding.contains(place)
                        && HostFilter.changing.allSatisfy { $0.passes(fleet, place, prepared) }
                }
                return best(fleet, fitting, prepared, random)
            }
            let excluded = excluding.union(refused(fleet, request, affinity))
            if let preferred = soft(fleet, shape, prepared, excluded, random) { return preferred }
            return shape.best(fleet, prepared, excluding: excluded, random: random)
        }
    }

    /// The only hosts that can pass, if the request names hosts; nil if it does not.
    private static func candidates(_ fleet: Fleet, _ request: SchedulingRequest, _ affinity: AffinityContext) -> [Int]? {
        if let name = request.host { return fleet.place(named: name).map { [$0] } ?? [] }
        if !request.sameHost.isEmpty { return affinity.same.compactMap { fleet.place(of: $0) }.sorted() }
        if request.group?.policy == .affinity, !affinity.members.isEmpty {
            return affinity.members.keys.compactMap { fleet.place(of: $0) }.sorted()
        }
        return nil
    }

    /// The hosts that the request excludes by name or through servers on them.
    private static func refused(_ fleet: Fleet, _ request: SchedulingRequest, _ affinity: AffinityContext) -> [Int] {
        var refused = request.excludedHosts.compactMap { fleet.place(named: $0) }
        refused += affinity.different.compactMap { fleet.place(of: $0) }
        if let group = request.group, group.policy == .antiAffinity {
            for (id, members) in affinity.members where members >= group.maxPerHost {
                if let place = fleet.place(of: id) { refused.append(place) }
            }
        }
        return refused
    }

    /// The host preferred by a soft group policy; nil if there is none or the preference makes no difference.
    private static func soft(
        _ fleet: Fleet, _ shape: ShapeIndex, _ prepared: PreparedRequest, _ excluded: Set<Int>, _ random: UInt64
    ) -> Int? {
        guard let policy = prepared.request.group?.policy, !prepared.affinity.members.isEmpty else { return nil }
        let taken = prepared.affinity.members.keys.compactMap { fleet.place(of: $0) }.sorted()
        func fitting() -> [Int] {
            taken.filter { shape.contains($0) && !excluded.contains($0) && fleet.fits($0, prepared.needs) }
        }
        switch policy {
        case .affinity, .antiAffinity: return nil
        case .softAffinity: return best(fleet, fitting(), prepared, random)
        case .softAntiAffinity:
            return shape.best(fleet, prepared, excluding: excluded.union(taken), random: random)
                ?? best(fleet, fitting(), prepared, random)
        }
    }

    /// The best of a few hosts that all pass: first by the group's preference, then by free capacity.
    private static func best(_ fleet: Fleet, _ places: [Int], _ prepared: PreparedRequest, _ random: UInt64) -> Int? {
        func preference(_ place: Int) -> Int {
            let members = prepared.affinity.members[fleet.hosts[place].id] ?? 0
            switch prepared.request.group?.policy {
            case .softAffinity, .affinity: return members
            case .softAntiAffinity, .antiAffinity: return -members
            case nil: return 0
            }
        }
        guard !places.isEmpty else { return nil }
        let start = Int(random % UInt64(places.count))
        var choice: Int?
        for offset in places.indices {
            let place = places[(start + offset) % places.count]
            guard let current = choice else {
                choice = place
                continue
            }
            let (here, there) = (preference(place), preference(current))
            if here > there || here == there && fleet.freeCapacities[place].score > fleet.freeCapacities[current].score { choice = place }
        }
        return choice
    }

    /// The number of instances of the request that currently fit in the fleet.
    package static func fitCount(_ fleet: Fleet, _ request: SchedulingRequest, _ affinity: AffinityContext) -> Int {
        let prepared = fleet.prepared(request, affinity)
        let asked = HostFilter.allCases.filter { $0.isAsked(request) }
        var total = 0
        var largest = 0
        for place in fleet.hosts.indices where asked.allSatisfy({ $0.passes(fleet, place, prepared) }) {
            let fits = fitCount(fleet, place, prepared)
            total += fits
            largest = max(largest, fits)
        }
        // The host of the first member is also the host of all others.
        return request.group?.policy == .affinity ? largest : total
    }

    /// The number of instances of the request that fit on one host, which must pass every filter.
    static func fitCount(_ fleet: Fleet, _ place: Int, _ prepared: PreparedRequest) -> Int {
        var fits = Int(Int32.max)
        for need in prepared.needs {
            guard let column = need.column else { continue }
            fits = min(fits, fleet.columns[column].free[place] / need.amount)
        }
        guard let group = prepared.request.group, group.policy == .antiAffinity else { return fits }
        return min(fits, group.maxPerHost - (prepared.affinity.members[fleet.hosts[place].id] ?? 0))
    }
}

extension HostFilter {
    /// Filters whose result depends on running servers, or on the individual request.
    static let changing = HostFilter.allCases.filter { !fixed.contains($0) }
}
