package import Contracts
import JSON
import Kernel

/// Explains a scheduling decision: how many hosts each filter rejected, and why.
package struct Explanation: Sendable {
    /// One filter, with the number of hosts before and after it.
    package struct Step: Sendable, Hashable {
        package let filter: HostFilter
        package let before: Int
        package let after: Int
        /// The number of hosts refused for each reason, in terms for the tenant.
        package let reasons: [String: Int]
    }

    /// Why one host was refused; for operators.
    package struct HostNote: Sendable {
        package let host: String
        package let filter: HostFilter
        package let reason: String
    }

    package let steps: [Step]
    /// The filter that refused each refused host, with the reason in terms for the operator.
    package let notes: [HostNote]
    /// Alternatives that would fit; nil if a host passed.
    package let nearest: Nearest?
    /// Number of hosts that passed every filter.
    package let passed: Int

    /// Alternatives that would fit.
    package struct Nearest: Sendable {
        /// The largest amounts, up to those requested, that a single host passing all other filters could provide; empty if
        /// no host has some of each class.
        package let resources: [ResourceAmount]
        /// The number of servers that would fit in availability zones that were not requested.
        package let zones: [String: Int]
        /// Filters that alone are responsible: without any single one of them, some hosts would have passed.
        package let without: [HostFilter]
    }

    /// Maximum number of hosts that are listed for the operator.
    private static let notesMax = 1000

    /// Evaluates every host, for a complete explanation.
    package init(_ fleet: Fleet, _ request: SchedulingRequest, _ affinity: AffinityContext) {
        let prepared = fleet.prepared(request, affinity)
        var left = fleet.hosts.indices.map { Int32($0) }
        var notes: [HostNote] = []
        var steps: [Step] = []
        for filter in HostFilter.allCases where filter.isAsked(request) {
            steps.append(Explanation.apply(filter, to: &left, fleet, prepared, notes: &notes))
        }
        self.steps = steps
        self.notes = notes
        passed = left.count
        nearest = left.isEmpty ? Explanation.nearest(fleet, prepared) : nil
    }

    /// Only counts, from the cached index of the request's shape, so that it is cheap enough for every decision in a large fleet.
    package init(brief fleet: inout Fleet, _ request: SchedulingRequest, _ affinity: AffinityContext) {
        let prepared = fleet.prepared(request, affinity)
        var (steps, left) = fleet.withShape(prepared) { shape, _ in (shape.steps, shape.places) }
        for filter in HostFilter.changing where filter.isAsked(request) {
            steps.append(Explanation.apply(filter, to: &left, fleet, prepared))
        }
        self.steps = steps
        notes = []
        passed = left.count
        nearest = nil
    }

    static func apply(_ filter: HostFilter, to left: inout [Int32], _ fleet: Fleet, _ prepared: PreparedRequest) -> Step {
        let before = left.count
        var reasons: [String: Int] = [:]
        left.removeAll { place in
            if filter.passes(fleet, Int(place), prepared) { return false }
            reasons[filter.refusal(fleet, Int(place), prepared)?.tenant ?? "", default: 0] += 1
            return true
        }
        return Step(filter: filter, before: before, after: left.count, reasons: reasons)
    }

    private static func apply(
        _ filter: HostFilter, to left: inout [Int32], _ fleet: Fleet, _ prepared: PreparedRequest, notes: inout [HostNote]
    ) -> Step {
        for place in left.lazy.map({ Int($0) }) where !filter.passes(fleet, place, prepared) {
            guard notes.count < notesMax else { break }
            let reason = filter.refusal(fleet, place, prepared)?.operator ?? ""
            notes.append(HostNote(host: fleet.hosts[place].name, filter: filter, reason: reason))
        }
        return apply(filter, to: &left, fleet, prepared)
    }

    private static func nearest(_ fleet: Fleet, _ prepared: PreparedRequest) -> Nearest {
        let request = prepared.request
        let asked = HostFilter.allCases.filter { $0.isAsked(request) }
        var without: Set<HostFilter> = []
        var zones: [String: Int] = [:]
        var closest: (share: Double, place: Int)?
        for place in fleet.hosts.indices {
            guard let only = onlyRefusal(asked, fleet, place, prepared) else { continue }
            without.insert(only)
            if only == .zone { zones[fleet.hosts[place].zone, default: 0] += Scheduler.fitCount(fleet, place, prepared) }
            guard only == .resources else { continue }
            let share = request.resources.map { Double(available(fleet.hosts[place], $0)) / Double($0.amount) }.min() ?? 0
            if share > closest?.share ?? 0 { closest = (share, place) }
        }
        let resources = closest.map { found in
            request.resources.map { ResourceAmount($0.resourceClass, available(fleet.hosts[found.place], $0)) }
        }
        return Nearest(
            resources: resources ?? [], zones: zones, without: HostFilter.askedFor.filter { without.contains($0) })
    }

    /// The only filter that refuses a host; nil if several do.
    private static func onlyRefusal(_ asked: [HostFilter], _ fleet: Fleet, _ place: Int, _ prepared: PreparedRequest) -> HostFilter? {
        var only: HostFilter?
        for filter in asked where !filter.passes(fleet, place, prepared) {
            if only != nil { return nil }
            only = filter
        }
        return only
    }

    /// The amount of a class that one allocation could get, at most the requested amount.
    private static func available(_ host: HostState, _ need: ResourceAmount) -> Int {
        guard let inventory = host.inventories[need.resourceClass] else { return 0 }
        let amount = min(need.amount, host.free(need.resourceClass), inventory.maxUnit)
        let stepped = amount - amount % inventory.stepSize
        return stepped >= inventory.minUnit ? stepped : 0
    }

    // MARK: texts

    /// The refusal in terms for the tenant: no names of hosts, no data of others.
    package func message(_ request: SchedulingRequest) -> String {
        var text = "No valid host was found."
        guard let hosts = steps.first?.before, hosts > 0 else { return text + " There is no host yet." }
        guard let nearest else { return text }
        let short = zip(request.resources, nearest.resources).filter { $0.amount > $1.amount }
        if !short.isEmpty {
            let less = short.map { ResourceAmount($0.resourceClass, $0.amount - $1.amount).words }
            let kept = short.map { "\($1.amount) instead of \($0.amount)" }
            text += " It would fit with \(less.joined(separator: " and ")) less (\(kept.joined(separator: ", ")))."
        }
        for (zone, capacity) in nearest.zones.sorted(by: { $0.key < $1.key }) {
            text += " Availability zone \(zone) has room for \(capacity)."
        }
        let words = nearest.without.filter { $0 != .zone }.map { $0.requirement(request) }
        if !words.isEmpty { text += " Without \(words.joined(separator: ", or without ")) it would fit." }
        return text
    }

    /// The filters in the form of the answer.
    package var filters: [SchedulingAnswer.Filter] {
        steps.map { .init(name: $0.filter.rawValue, hostsBefore: $0.before, hostsAfter: $0.after, reasons: $0.reasons) }
    }

    /// The refused hosts in the form of the answer; for operators.
    package var refusals: [SchedulingAnswer.Refusal] {
        notes.map { .init(host: $0.host, filter: $0.filter.rawValue, reason: $0.reason) }
    }

    /// The alternatives in the form of the answer.
    package var nearestFit: SchedulingAnswer.Nearest? {
        nearest.map { nearest in
            .init(
                resources: Dictionary(nearest.resources.map { ($0.resourceClass, $0.amount) }) { $1 }, zones: nearest.zones,
                without: nearest.without.map(\.rawValue))
        }
    }
}

extension ResourceAmount {
    /// The names of the amounts in terms for the tenant.
    var words: String {
        switch resourceClass {
        case "VCPU": "\(amount) vCPU"
        case "MEMORY_MB": "\(amount) MB of memory"
        case "DISK_GB": "\(amount) GB of disk"
        default: "\(amount) \(resourceClass)"
        }
    }
}

extension HostFilter {
    /// Filters for requirements that the requester could drop.
    static let askedFor = HostFilter.allCases.filter { ![.compute, .isolation, .excluded, .resources].contains($0) }

    /// The part of the request that the filter evaluates, in terms for the tenant.
    func requirement(_ request: SchedulingRequest) -> String {
        switch self {
        case .compute: "hosts out of service"
        case .zone: "availability zone \(request.zone ?? "")"
        case .isolation: "the reservation for other projects"
        case .aggregates: "the flavor's aggregate properties"
        case .traits: "the traits"
        case .image: "the image's requirements"
        case .groupAffinity, .groupAntiAffinity: "the server group"
        case .sameHost: "the hint same_host"
        case .differentHost: "the hint different_host"
        case .excluded: "the exclusion of hosts"
        case .requestedHost: "the requested host"
        case .resources: "the amounts"
        }
    }
}
