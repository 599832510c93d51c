import Kernel
@testable import PlacementCore

/// The scheduler's rules, implemented separately and without regard to speed.
enum Oracle {
    static func admits(_ host: HostState, _ fleet: Fleet, _ request: SchedulingRequest, _ affinity: AffinityContext) -> Bool {
        if host.outage != nil { return false }
        if let zone = request.zone, zone != host.zone { return false }
        if let name = request.host, name != host.name { return false }
        if request.excludedHosts.contains(host.name) { return false }
        for trait in request.requiredTraits where !host.traits.contains(trait) { return false }
        for trait in request.forbiddenTraits where host.traits.contains(trait) { return false }
        if let wanted = request.architecture, let has = host.architecture, has != wanted {
            // A 64-bit processor can run 32-bit guests of its family.
            if !(has == "x86_64" && wanted == "i686") { return false }
        }
        if let wanted = request.hypervisorType, let has = host.hypervisorType, has != wanted { return false }
        let metadata = host.aggregates.compactMap { fleet.aggregates[$0]?.metadata }
        for (name, value) in request.aggregateMetadata where !has(metadata, name, { $0 == value }) { return false }
        for (name, rule) in request.aggregateSpecs where !has(metadata, name, { obeys($0, rule) }) { return false }
        let reservations = metadata.flatMap { $0 }.filter { $0.key.hasPrefix("filter_tenant_id") }.map(\.value)
        if !reservations.isEmpty, !reservations.contains(where: { words($0).contains(request.projectID) }) { return false }
        if !request.sameHost.isEmpty, !affinity.same.contains(host.id) { return false }
        if affinity.different.contains(host.id) { return false }
        if let group = request.group {
            let here = affinity.members[host.id] ?? 0
            if group.policy == .affinity, !affinity.members.isEmpty, here == 0 { return false }
            if group.policy == .antiAffinity, here >= group.maxPerHost { return false }
        }
        return fits(host, request)
    }

    private static func words(_ list: String) -> [String] {
        list.split(separator: ",").map { $0.trimmingPrefix(" ") }.map(String.init)
    }

    private static func has(_ metadata: [[String: String]], _ name: String, _ isRight: (String) -> Bool) -> Bool {
        metadata.contains { aggregate in aggregate[name].map { words($0).contains(where: isRight) } ?? false }
    }

    /// Only the rules for values that `Dice` generates.
    private static func obeys(_ value: String, _ rule: String) -> Bool {
        switch rule {
        case "<or> gold <or> silver": value == "gold" || value == "silver"
        case ">= 3": Int(value).map { $0 >= 3 } ?? false
        case "s!= gold": value != "gold"
        default: value == rule
        }
    }

    /// The request without the requirement of a filter.
    static func without(
        _ filter: HostFilter, _ request: SchedulingRequest, _ affinity: AffinityContext
    ) -> (SchedulingRequest, AffinityContext) {
        var (request, affinity) = (request, affinity)
        switch filter {
        case .zone: request.zone = nil
        case .aggregates: (request.aggregateMetadata, request.aggregateSpecs) = ([:], [:])
        case .traits: (request.requiredTraits, request.forbiddenTraits) = ([], [])
        case .image: (request.architecture, request.hypervisorType) = (nil, nil)
        case .groupAffinity, .groupAntiAffinity: request.group = nil
        case .sameHost: request.sameHost = []
        case .differentHost: (request.differentHost, affinity.different) = ([], [])
        case .requestedHost: request.host = nil
        case .compute, .isolation, .excluded, .resources: break
        }
        return (request, affinity)
    }

    static func fits(_ host: HostState, _ request: SchedulingRequest) -> Bool {
        request.resources.allSatisfy { need in
            guard let inventory = host.inventories[need.resourceClass] else { return false }
            let limit = Double(inventory.total - inventory.reserved) * inventory.allocationRatio
            return need.amount >= inventory.minUnit && need.amount <= inventory.maxUnit && need.amount % inventory.stepSize == 0
                && Double(need.amount + (host.used[need.resourceClass] ?? 0)) <= limit
        }
    }
}

/// Random fleets and requests, small enough that every rule often matters.
struct Dice {
    let random: SeededRandom

    func pick<Value>(_ values: [Value]) -> Value { values[random.below(values.count)] }
    func chance(_ percent: Int) -> Bool { random.below(100) < percent }
    func some<Value>(_ values: [Value], _ percent: Int) -> [Value] { values.filter { _ in chance(percent) } }

    func fleet(_ hosts: Int) -> Fleet {
        let aggregates = (1...3).map { id in
            var metadata: [String: String] = [:]
            if chance(40) { metadata["ssd"] = pick(["true", "false", "true, false"]) }
            if chance(40) { metadata["tier"] = pick(["gold", "silver", "bronze,silver"]) }
            if chance(40) { metadata["level"] = pick(["1", "3", "12"]) }
            if chance(20) { metadata["filter_tenant_id"] = pick(["p1", "p1,p2", "p2"]) }
            if chance(10) { metadata["filter_tenant_id2"] = "p3" }
            return HostAggregate(id: id, metadata: metadata)
        }
        let states = (0..<hosts).map { number in
            var inventories: [String: Inventory] = [:]
            var used: [String: Int] = [:]
            for (name, total) in [("VCPU", 8), ("MEMORY_MB", 4096), ("DISK_GB", 50), ("VGPU", 2)] where name != "VGPU" || chance(30) {
                inventories[name] = Inventory(
                    total: total, reserved: chance(20) ? total / 4 : 0, minUnit: chance(10) ? 2 : 1,
                    maxUnit: chance(20) ? max(1, total / 2) : total,
                    stepSize: pick([1, 1, 1, 1, 1, 1, 1, 2, 3]), allocationRatio: pick([1, 1, 1.5, 4, 0.5]))
                used[name] = random.below(total + total / 4)
            }
            return HostState(
                id: random.uuid(), name: "h\(number)", outage: chance(10) ? pick([.disabled, .forcedDown, .silent]) : nil,
                zone: pick(["nova", "nova", "az2"]), aggregates: some([1, 2, 3], 25),
                traits: Set(some(["HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "CUSTOM_A"], 60)),
                architecture: pick([nil, "x86_64", "x86_64", "aarch64"]), hypervisorType: pick([nil, "qemu", "qemu", "xen"]),
                inventories: inventories, used: used)
        }
        return Fleet(states, aggregates: aggregates)
    }

    func request(_ fleet: Fleet) -> (SchedulingRequest, AffinityContext) {
        var request = SchedulingRequest()
        var affinity = AffinityContext()
        request.projectID = pick(["p1", "p2", "p3"])
        request.resources = [
            ResourceAmount("DISK_GB", 1 + random.below(40)), ResourceAmount("MEMORY_MB", 1 + random.below(3000)),
            ResourceAmount("VCPU", 1 + random.below(8)),
        ]
        if chance(15) { request.resources.append(ResourceAmount("VGPU", 1)) }
        if chance(30) { request.zone = pick(["nova", "az2", "az3"]) }
        if chance(10) { request.host = "h\(random.below(fleet.hosts.count + 1))" }
        request.requiredTraits = Set(some(["HW_CPU_X86_AVX", "CUSTOM_A"], 20))
        request.forbiddenTraits = Set(some(["HW_CPU_X86_AVX2"], 10)).subtracting(request.requiredTraits)
        if chance(20) { request.architecture = pick(["x86_64", "aarch64", "i686"]) }
        if chance(15) { request.hypervisorType = pick(["qemu", "xen"]) }
        if chance(20) {
            let (name, rule) = pick([("tier", "<or> gold <or> silver"), ("level", ">= 3"), ("tier", "s!= gold"), ("ssd", "false")])
            request.aggregateSpecs = [name: rule]
        }
        if chance(15) { request.aggregateMetadata = ["ssd": "true"] }
        request.excludedHosts = Set(some(fleet.hosts.map(\.name), 5))
        let few = some(fleet.hosts.map(\.id), 15)
        if chance(40) {
            request.group = .init(
                id: "g", policy: pick([.affinity, .antiAffinity, .softAffinity, .softAntiAffinity]), maxPerHost: pick([1, 1, 2]))
            for id in few { affinity.members[id] = 1 + random.below(2) }
        }
        if chance(10) {
            request.sameHost = [random.uuid()]
            affinity.same = Set(few)
        }
        if chance(15) {
            request.differentHost = [random.uuid()]
            affinity.different = Set(some(fleet.hosts.map(\.id), 20))
        }
        return (request, affinity)
    }
}
