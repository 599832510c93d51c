import Kernel

/// Where something goes.
package enum Scheduler {
    /// The most attractive host that passes every filter; nil when there is none.
    ///
    /// - Parameters:
    ///   - excluding: places in the fleet that a claim has just failed on.
    ///   - random: orders hosts that are equally attractive.
    package static func decide(
        _ fleet: inout Fleet, _ request: SchedulingRequest, _ around: Surroundings, excluding: Set<Int> = [],
        random: UInt64
    ) -> Int? {
        guard !fleet.hosts.isEmpty else { return nil }
        var mask = fleet.mask(request)
        for place in excluding { mask.remove(place) }
        if let few = candidates(fleet, request, around) {
            let fitting = few.filter { place in
                mask.contains(place) && HostFilter.changing.allSatisfy { $0.passes(fleet, place, request, around) }
            }
            return best(fleet, fitting, request, around, random)
        }
        remove(fleet, &mask, request, around)
        let preferred = soft(fleet, mask, request, around, random)
        return preferred ?? search(fleet, mask, request, random)
    }

    /// The only hosts that can pass where the request names them; nil when it leaves the choice open.
    private static func candidates(_ fleet: Fleet, _ request: SchedulingRequest, _ around: Surroundings) -> [Int]? {
        if let name = request.host { return fleet.place(named: name).map { [$0] } ?? [] }
        if !request.sameHost.isEmpty { return around.same.compactMap { fleet.place(of: $0) }.sorted() }
        if request.group?.policy == .affinity, !around.members.isEmpty {
            return around.members.keys.compactMap { fleet.place(of: $0) }.sorted()
        }
        return nil
    }

    /// Takes out what the request excludes by name or by what runs there.
    private static func remove(
        _ fleet: Fleet, _ mask: inout HostMask, _ request: SchedulingRequest, _ around: Surroundings
    ) {
        for name in request.excludedHosts { if let place = fleet.place(named: name) { mask.remove(place) } }
        for id in around.different { if let place = fleet.place(of: id) { mask.remove(place) } }
        if let group = request.group, group.policy == .antiAffinity {
            for (id, members) in around.members where members >= group.maxPerHost {
                if let place = fleet.place(of: id) { mask.remove(place) }
            }
        }
    }

    /// What the group would rather have; nil where that is not to be had or the other hosts are as good.
    private static func soft(
        _ fleet: Fleet, _ mask: HostMask, _ request: SchedulingRequest, _ around: Surroundings, _ random: UInt64
    ) -> Int? {
        guard let policy = request.group?.policy, !around.members.isEmpty else { return nil }
        let taken = around.members.keys.compactMap { fleet.place(of: $0) }.sorted()
        let fitting = taken.filter { mask.contains($0) && fleet.hosts[$0].fits(request.resources) }
        switch policy {
        case .affinity, .antiAffinity: return nil
        case .softAffinity: return best(fleet, fitting, request, around, random)
        case .softAntiAffinity:
            var others = mask
            for place in taken { others.remove(place) }
            return search(fleet, others, request, random) ?? best(fleet, fitting, request, around, random)
        }
    }

    private static func search(_ fleet: Fleet, _ mask: HostMask, _ request: SchedulingRequest, _ random: UInt64) -> Int? {
        fleet.index.find(request.need, in: mask, random: random) { fleet.hosts[$0].fits(request.resources) }
    }

    /// The best of a few hosts that all pass: first by what the group prefers, then by what is free.
    private static func best(
        _ fleet: Fleet, _ places: [Int], _ request: SchedulingRequest, _ around: Surroundings, _ random: UInt64
    ) -> Int? {
        func preference(_ place: Int) -> Int {
            let members = around.members[fleet.hosts[place].id] ?? 0
            switch request.group?.policy {
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
            if here > there || here == there && fleet.index.score(place) > fleet.index.score(current) { choice = place }
        }
        return choice
    }

    /// How many more like the request the fleet takes now, if nothing else changes.
    package static func room(_ fleet: Fleet, _ request: SchedulingRequest, _ around: Surroundings) -> Int {
        var total = 0
        var largest = 0
        for place in fleet.hosts.indices where HostFilter.allCases.allSatisfy({ $0.passes(fleet, place, request, around) }) {
            let host = fleet.hosts[place]
            var fits = Int(Int32.max)
            for need in request.resources { fits = min(fits, host.free(need.resourceClass) / need.amount) }
            if let group = request.group, group.policy == .antiAffinity {
                fits = min(fits, group.maxPerHost - (around.members[host.id] ?? 0))
            }
            total += fits
            largest = max(largest, fits)
        }
        // The first member decides where all the others go.
        return request.group?.policy == .affinity ? largest : total
    }
}

extension HostFilter {
    /// Those whose answer changes with what runs where, or with the single request.
    static let changing = HostFilter.allCases.filter { !fixed.contains($0) }
}
