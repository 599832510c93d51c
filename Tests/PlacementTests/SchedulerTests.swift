import JSON
import Kernel
@testable import PlacementCore
import Testing

/// The rules again, written without regard to speed and without the scheduler's code.
private enum Oracle {
    static func admits(_ host: HostState, _ fleet: Fleet, _ request: SchedulingRequest, _ around: Surroundings) -> Bool {
        if host.outage != nil { return false }
        if let zone = request.zone, zone != host.zone { return false }
        if let name = request.host, name != host.name { return false }
        if request.excludedHosts.contains(host.name) { return false }
        for trait in request.requiredTraits where !host.traits.contains(trait) { return false }
        for trait in request.forbiddenTraits where host.traits.contains(trait) { return false }
        if let wanted = request.architecture, let has = host.architecture, has != wanted { return false }
        let metadata = host.aggregates.compactMap { fleet.aggregates[$0]?.metadata }
        for (name, value) in request.aggregateMetadata where !metadata.contains(where: { $0[name] == value }) { return false }
        let tenants = metadata.compactMap { $0["filter_tenant_id"] }
        if !tenants.isEmpty, !tenants.contains(where: { $0.split(separator: ",").contains(Substring(request.projectID)) }) { return false }
        if !request.sameHost.isEmpty, !around.same.contains(host.id) { return false }
        if around.different.contains(host.id) { return false }
        if let group = request.group {
            let here = around.members[host.id] ?? 0
            if group.policy == .affinity, !around.members.isEmpty, here == 0 { return false }
            if group.policy == .antiAffinity, here >= group.maxPerHost { return false }
        }
        return request.resources.allSatisfy { need in
            guard let inventory = host.inventories[need.resourceClass] else { return false }
            let limit = Double(inventory.total - inventory.reserved) * inventory.allocationRatio
            return need.amount >= inventory.minUnit && need.amount <= inventory.maxUnit && need.amount % inventory.stepSize == 0
                && Double(need.amount + (host.used[need.resourceClass] ?? 0)) <= limit
        }
    }
}

/// Fleets and requests by chance, small enough that every rule matters often.
private struct Dice {
    let random: SeededRandom

    func pick<Value>(_ values: [Value]) -> Value { values[random.below(values.count)] }
    func chance(_ percent: Int) -> Bool { random.below(100) < percent }
    func some<Value>(_ values: [Value], _ percent: Int) -> [Value] { values.filter { _ in chance(percent) } }

    func fleet(_ hosts: Int) -> Fleet {
        let aggregates = (1...3).map { id in
            HostAggregate(id: id, metadata: chance(40) ? ["ssd": pick(["true", "false"])] : chance(30) ? ["filter_tenant_id": pick(["p1", "p1,p2", "p2"])] : [:])
        }
        let states = (0..<hosts).map { number in
            var inventories: [String: Inventory] = [:]
            var used: [String: Int] = [:]
            for (name, total) in [("VCPU", 8), ("MEMORY_MB", 4096), ("DISK_GB", 50), ("VGPU", 2)] where name != "VGPU" || chance(30) {
                inventories[name] = Inventory(
                    total: total, reserved: chance(20) ? total / 4 : 0, minUnit: 1, maxUnit: chance(20) ? max(1, total / 2) : total,
                    stepSize: chance(10) ? 2 : 1, allocationRatio: pick([1, 1, 1.5, 4]))
                used[name] = random.below(total + total / 4)
            }
            return HostState(
                id: random.uuid(), name: "h\(number)", outage: chance(10) ? pick([.disabled, .forcedDown, .silent]) : nil,
                zone: pick(["nova", "nova", "az2"]), aggregates: some([1, 2, 3], 25),
                traits: Set(some(["HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "CUSTOM_A"], 60)),
                architecture: pick([nil, "x86_64", "x86_64", "aarch64"]), inventories: inventories, used: used)
        }
        return Fleet(states, aggregates: aggregates)
    }

    func request(_ fleet: Fleet) -> (SchedulingRequest, Surroundings) {
        var request = SchedulingRequest()
        var around = Surroundings()
        request.projectID = pick(["p1", "p2", "p3"])
        request.resources = [ResourceAmount("DISK_GB", 1 + random.below(40)), ResourceAmount("MEMORY_MB", 1 + random.below(3000)), ResourceAmount("VCPU", 1 + random.below(8))]
        if chance(15) { request.resources.append(ResourceAmount("VGPU", 1)) }
        if chance(30) { request.zone = pick(["nova", "az2", "az3"]) }
        if chance(10) { request.host = "h\(random.below(fleet.hosts.count + 1))" }
        request.requiredTraits = Set(some(["HW_CPU_X86_AVX", "CUSTOM_A"], 20))
        request.forbiddenTraits = Set(some(["HW_CPU_X86_AVX2"], 10)).subtracting(request.requiredTraits)
        if chance(20) { request.architecture = pick(["x86_64", "aarch64"]) }
        if chance(15) { request.aggregateMetadata = ["ssd": "true"] }
        request.excludedHosts = Set(some(fleet.hosts.map(\.name), 5))
        let few = some(fleet.hosts.map(\.id), 15)
        if chance(40) {
            request.group = .init(id: "g", policy: pick([.affinity, .antiAffinity, .softAffinity, .softAntiAffinity]), maxPerHost: pick([1, 1, 2]))
            for id in few { around.members[id] = 1 + random.below(2) }
        }
        if chance(10) {
            request.sameHost = [random.uuid()]
            around.same = Set(few)
        }
        if chance(15) {
            request.differentHost = [random.uuid()]
            around.different = Set(some(fleet.hosts.map(\.id), 20))
        }
        return (request, around)
    }
}

@Suite struct SchedulerTests {
    @Test(arguments: 1...4) func aHostIsFoundIfAndOnlyIfThereIsOne(_ seed: Int) {
        let dice = Dice(random: SeededRandom(seed: UInt64(seed)))
        var found = 0
        for _ in 0..<40 {
            var fleet = dice.fleet(dice.pick([1, 3, 12, 70, 130]))
            for _ in 0..<20 {
                let (request, around) = dice.request(fleet)
                let admitted = fleet.hosts.indices.filter { Oracle.admits(fleet.hosts[$0], fleet, request, around) }
                let choice = Scheduler.decide(&fleet, request, around, random: dice.random.next())
                if let choice { #expect(admitted.contains(choice)) } else { #expect(admitted.isEmpty) }
                let explanation = Explanation(fleet, request, around)
                #expect(explanation.passed == admitted.count)
                #expect((explanation.nearest == nil) == !admitted.isEmpty)
                let brief = Explanation(brief: &fleet, request, around)
                #expect(brief.steps == explanation.steps)
                guard let choice else { continue }
                found += 1
                checkPreference(fleet, request, around, choice, admitted)
                fleet.charge(choice, request.resources)
            }
        }
        #expect(found > 100)
    }

    private func checkPreference(
        _ fleet: Fleet, _ request: SchedulingRequest, _ around: Surroundings, _ choice: Int, _ admitted: [Int]
    ) {
        func members(_ place: Int) -> Int { around.members[fleet.hosts[place].id] ?? 0 }
        switch request.group?.policy {
        case .softAffinity: #expect(admitted.allSatisfy { members($0) <= members(choice) })
        case .softAntiAffinity: #expect(admitted.allSatisfy { members($0) >= members(choice) })
        case nil:
            let best = admitted.map { fleet.rooms[$0].score }.max() ?? 0
            #expect(fleet.rooms[choice].score == best)
        case .affinity, .antiAffinity: break
        }
    }

    @Test func equalHostsAreChosenByTheInjectedRandom() {
        let hosts = (0..<100).map { number in
            HostState(id: UUID128(high: 1, low: UInt64(number)), name: "h\(number)", inventories: ["VCPU": Inventory(total: 8)])
        }
        var fleet = Fleet(hosts)
        var request = SchedulingRequest()
        request.resources = [ResourceAmount("VCPU", 1)]
        let random = SeededRandom(seed: 3)
        let choices = Set((0..<200).map { _ in Scheduler.decide(&fleet, request, .none, random: random.next()) })
        #expect(choices.count > 30)
        let again = Scheduler.decide(&fleet, request, .none, random: 99)
        #expect(Scheduler.decide(&fleet, request, .none, random: 99) == again)
    }

    @Test func roomIsWhatCanReallyBePlaced() {
        for seed in 1...20 {
            let dice = Dice(random: SeededRandom(seed: UInt64(seed)))
            var fleet = dice.fleet(12)
            var (request, _) = dice.request(fleet)
            (request.group, request.sameHost) = (nil, [])
            let room = Scheduler.room(fleet, request, .none)
            var placed = 0
            while let place = Scheduler.decide(&fleet, request, .none, random: dice.random.next()) {
                fleet.charge(place, request.resources)
                placed += 1
            }
            #expect(placed == room)
        }
    }

    @Test func spreadsAndPacksByWeights() {
        func choice(_ weights: SchedulingWeights) -> String? {
            let empty = HostState(id: UUID128(high: 1, low: 1), name: "empty", inventories: ["MEMORY_MB": Inventory(total: 100)])
            let half = HostState(id: UUID128(high: 1, low: 2), name: "half", inventories: ["MEMORY_MB": Inventory(total: 100)], used: ["MEMORY_MB": 50])
            var fleet = Fleet([empty, half], weights: weights)
            var request = SchedulingRequest()
            request.resources = [ResourceAmount("MEMORY_MB", 10)]
            return Scheduler.decide(&fleet, request, .none, random: 0).map { fleet.hosts[$0].name }
        }
        #expect(choice(SchedulingWeights()) == "empty")
        #expect(choice(SchedulingWeights(memory: -1)) == "half")
    }

    @Test func explanationsTellTenantsNoNames() throws {
        let hosts = [
            HostState(id: UUID128(high: 1, low: 1), name: "secret-1", outage: .disabled, inventories: ["VCPU": Inventory(total: 8)]),
            HostState(id: UUID128(high: 1, low: 2), name: "secret-2", inventories: ["VCPU": Inventory(total: 4)], used: ["VCPU": 1]),
            HostState(id: UUID128(high: 1, low: 3), name: "secret-3", zone: "az2", inventories: ["VCPU": Inventory(total: 64)]),
        ]
        var request = SchedulingRequest()
        request.zone = "nova"
        request.resources = [ResourceAmount("VCPU", 10)]
        let explanation = Explanation(Fleet(hosts), request, .none)
        #expect(explanation.steps.map { [$0.before, $0.after] } == [[3, 2], [2, 1], [1, 1], [1, 0]])
        let shown = explanation.message(request) + explanation.filtersDocument.description
        #expect(!shown.contains("secret"))
        #expect(shown.contains("3 of 10 VCPU"))
        #expect(shown.contains("Without availability zone nova it would fit"))
        #expect(explanation.operatorDocument.description.contains("needs 10 VCPU, 3 of 4 free"))
        #expect(explanation.notes.map(\.host) == ["secret-1", "secret-3", "secret-2"])
    }

    @Test func requestsAreReadOrRefused() throws {
        let request = try SchedulingRequest(
            wanted(with: [
                "flavor_extra_specs": ["resources:VGPU": "1", "trait:CUSTOM_A": "required", "aggregate_instance_extra_specs:ssd": "true", "hw:cpu_policy": "dedicated"],
                "image_properties": ["hw_architecture": "amd64", "min_disk": 5], "availability_zone": nil,
                "group": ["id": "g1", "policy": "anti-affinity", "rules": ["max_server_per_host": "2"], "members": []],
            ]))
        #expect(request.resources.map(\.resourceClass) == ["DISK_GB", "MEMORY_MB", "VCPU", "VGPU"])
        #expect(request.requiredTraits == ["CUSTOM_A"])
        #expect(request.aggregateSpecs == ["ssd": "true"])
        #expect(request.architecture == "x86_64")
        #expect(request.group?.maxPerHost == 2)
        for (name, value) in [
            ("operation_id", "x"), ("consumer_id", nil), ("resources", []), ("resources", ["VCPU": -1]), ("resources", ["VCPU": 0]),
            ("resources", ["VCPU": "many"]), ("group", ["id": "g", "policy": "wrong"]), ("same_host", ["x"]), ("dry_run", "yes"),
            ("host", 5), ("flavor_extra_specs", ["trait:X": "perhaps"]), ("required_traits", "A"),
        ] as [(String, JSONValue)] {
            let error = #expect(throws: ResourceError.self, "\(name)") { try SchedulingRequest(wanted(with: [name: value])) }
            #expect(error?.code == .badRequest)
        }
    }
}
