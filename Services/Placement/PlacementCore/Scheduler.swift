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
        let inquiry = fleet.inquiry(request, around)
        return fleet.withShape(inquiry) { shape, fleet in
            if let few = candidates(fleet, request, around) {
                let fitting = few.filter { place in
                    shape.contains(place) && !excluding.contains(place)
                        && HostFilter.changing.allSatisfy { $0.passes(fleet, place, inquiry) }
                }
                return best(fleet, fitting, inquiry, random)
            }
            let excluded = excluding.union(refused(fleet, request, around))
            if let preferred = soft(fleet, shape, inquiry, excluded, random) { return preferred }
            return shape.best(fleet, inquiry, excluding: excluded, random: random)
        }
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

    /// What the request excludes by name or by what runs there.
    private static func refused(_ fleet: Fleet, _ request: SchedulingRequest, _ around: Surroundings) -> [Int] {
        var refused = request.excludedHosts.compactMap { fleet.place(named: $0) }
        refused += around.different.compactMap { fleet.place(of: $0) }
        if let group = request.group, group.policy == .antiAffinity {
            for (id, members) in around.members where members >= group.maxPerHost {
                if let place = fleet.place(of: id) { refused.append(place) }
            }
        }
        return refused
    }

    /// What the group would rather have; nil where that is not to be had or the other hosts are as good.
    private static func soft(
        _ fleet: Fleet, _ shape: ShapeIndex, _ inquiry: Inquiry, _ excluded: Set<Int>, _ random: UInt64
    ) -> Int? {
        guard let policy = inquiry.request.group?.policy, !inquiry.around.members.isEmpty else { return nil }
        let taken = inquiry.around.members.keys.compactMap { fleet.place(of: $0) }.sorted()
        func fitting() -> [Int] {
            taken.filter { shape.contains($0) && !excluded.contains($0) && fleet.fits($0, inquiry.needs) }
        }
        switch policy {
        case .affinity, .antiAffinity: return nil
        case .softAffinity: return best(fleet, fitting(), inquiry, random)
        case .softAntiAffinity:
            return shape.best(fleet, inquiry, excluding: excluded.union(taken), random: random)
                ?? best(fleet, fitting(), inquiry, random)
        }
    }

    /// The best of a few hosts that all pass: first by what the group prefers, then by what is free.
    private static func best(_ fleet: Fleet, _ places: [Int], _ inquiry: Inquiry, _ random: UInt64) -> Int? {
        func preference(_ place: Int) -> Int {
            let members = inquiry.around.members[fleet.hosts[place].id] ?? 0
            switch inquiry.request.group?.policy {
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
            if here > there || here == there && fleet.rooms[place].score > fleet.rooms[current].score { choice = place }
        }
        return choice
    }

    /// How many more like the request the fleet takes now, if nothing else changes.
    package static func room(_ fleet: Fleet, _ request: SchedulingRequest, _ around: Surroundings) -> Int {
        let inquiry = fleet.inquiry(request, around)
        let asked = HostFilter.allCases.filter { $0.isAsked(request) }
        var total = 0
        var largest = 0
        for place in fleet.hosts.indices where asked.allSatisfy({ $0.passes(fleet, place, inquiry) }) {
            let fits = room(fleet, place, inquiry)
            total += fits
            largest = max(largest, fits)
        }
        // The first member decides where all the others go.
        return request.group?.policy == .affinity ? largest : total
    }

    /// How many of them one host takes that passes every filter.
    static func room(_ fleet: Fleet, _ place: Int, _ inquiry: Inquiry) -> Int {
        var fits = Int(Int32.max)
        for need in inquiry.needs {
            guard let column = need.column else { continue }
            fits = min(fits, fleet.columns[column].free[place] / need.amount)
        }
        guard let group = inquiry.request.group, group.policy == .antiAffinity else { return fits }
        return min(fits, group.maxPerHost - (inquiry.around.members[fleet.hosts[place].id] ?? 0))
    }
}

extension HostFilter {
    /// Those whose answer changes with what runs where, or with the single request.
    static let changing = HostFilter.allCases.filter { !fixed.contains($0) }
}
