import Contracts
import JSON
import Kernel
@testable import PlacementCore
import Testing

@Suite struct SchedulerTests {
    @Test(arguments: 1...4) func aHostIsFoundIfAndOnlyIfThereIsOne(_ seed: Int) {
        let dice = Dice(random: SeededRandom(seed: UInt64(seed)))
        var found = 0
        for _ in 0..<40 {
            var fleet = dice.fleet(dice.pick([1, 3, 12, 70, 130]))
            for _ in 0..<20 {
                let (request, affinity) = dice.request(fleet)
                let admitted = fleet.hosts.indices.filter { Oracle.admits(fleet.hosts[$0], fleet, request, affinity) }
                let choice = Scheduler.decide(&fleet, request, affinity, random: dice.random.next())
                if let choice { #expect(admitted.contains(choice)) } else { #expect(admitted.isEmpty) }
                let explanation = Explanation(fleet, request, affinity)
                #expect(explanation.passed == admitted.count)
                #expect((explanation.nearest == nil) == !admitted.isEmpty)
                let brief = Explanation(brief: &fleet, request, affinity)
                #expect(brief.steps == explanation.steps)
                guard let choice else { continue }
                found += 1
                checkPreference(fleet, request, affinity, choice, admitted)
                fleet.charge(choice, request.resources)
            }
        }
        #expect(found > 100)
    }

    /// Every filter refuses and passes hosts in these fleets and requests, so that the test above covers all of them.
    @Test func chanceReachesEveryFilter() {
        let dice = Dice(random: SeededRandom(seed: 11))
        var refused: [HostFilter: Int] = [:]
        var passed: [HostFilter: Int] = [:]
        for _ in 0..<60 {
            let fleet = dice.fleet(12)
            for _ in 0..<20 {
                let (request, affinity) = dice.request(fleet)
                let prepared = fleet.prepared(request, affinity)
                for filter in HostFilter.allCases where filter.isAsked(request) {
                    for place in fleet.hosts.indices {
                        if filter.passes(fleet, place, prepared) {
                            passed[filter, default: 0] += 1
                        } else {
                            refused[filter, default: 0] += 1
                        }
                    }
                }
            }
        }
        for filter in HostFilter.allCases {
            #expect(refused[filter] ?? 0 > 100, "\(filter) refuses")
            #expect(passed[filter] ?? 0 > 20, "\(filter) passes")
        }
    }

    /// The nearest fit in an explanation does fit.
    @Test func theNearestFits() {
        var (amounts, zones, filters) = (0, 0, 0)
        for seed in 1...30 {
            let dice = Dice(random: SeededRandom(seed: UInt64(seed)))
            for _ in 0..<60 {
                let fleet = dice.fleet(dice.pick([1, 3, 8]))
                let (request, affinity) = dice.request(fleet)
                guard let nearest = Explanation(fleet, request, affinity).nearest else { continue }
                func admitted(_ request: SchedulingRequest, _ affinity: AffinityContext) -> Int {
                    fleet.hosts.filter { Oracle.admits($0, fleet, request, affinity) }.count
                }
                if !nearest.resources.isEmpty {
                    var less = request
                    less.resources = nearest.resources
                    #expect(admitted(less, affinity) > 0)
                    #expect(zip(nearest.resources, request.resources).contains { $0.amount < $1.amount })
                    amounts += 1
                }
                for (zone, capacity) in nearest.zones {
                    var elsewhere = request
                    elsewhere.zone = zone
                    #expect(admitted(elsewhere, affinity) > 0)
                    if request.group == nil { #expect(Scheduler.fitCount(fleet, elsewhere, affinity) == capacity) }
                    zones += 1
                }
                for filter in nearest.without {
                    let (freer, about) = Oracle.without(filter, request, affinity)
                    #expect(admitted(freer, about) > 0, "\(filter)")
                    filters += 1
                }
            }
        }
        #expect(amounts > 20 && zones > 5 && filters > 20)
    }

    private func checkPreference(
        _ fleet: Fleet, _ request: SchedulingRequest, _ affinity: AffinityContext, _ choice: Int, _ admitted: [Int]
    ) {
        func members(_ place: Int) -> Int { affinity.members[fleet.hosts[place].id] ?? 0 }
        switch request.group?.policy {
        case .softAffinity: #expect(admitted.allSatisfy { members($0) <= members(choice) })
        case .softAntiAffinity: #expect(admitted.allSatisfy { members($0) >= members(choice) })
        case nil:
            let best = admitted.map { fleet.freeCapacities[$0].score }.max() ?? 0
            #expect(fleet.freeCapacities[choice].score == best)
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

    @Test func fitCountEqualsPlaceableServers() {
        for seed in 1...20 {
            let dice = Dice(random: SeededRandom(seed: UInt64(seed)))
            var fleet = dice.fleet(12)
            var (request, _) = dice.request(fleet)
            (request.group, request.sameHost) = (nil, [])
            let capacity = Scheduler.fitCount(fleet, request, .none)
            var placed = 0
            while let place = Scheduler.decide(&fleet, request, .none, random: dice.random.next()) {
                fleet.charge(place, request.resources)
                placed += 1
            }
            #expect(placed == capacity)
        }
    }

    @Test func spreadsAndPacksByWeights() {
        func choice(_ weights: SchedulingWeights) -> String? {
            let empty = HostState(id: UUID128(high: 1, low: 1), name: "empty", inventories: ["MEMORY_MB": Inventory(total: 100)])
            let half = HostState(
                id: UUID128(high: 1, low: 2), name: "half", inventories: ["MEMORY_MB": Inventory(total: 100)], used: ["MEMORY_MB": 50])
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
        let shown = explanation.message(request) + "\(explanation.filters)"
        #expect(!shown.contains("secret"))
        #expect(shown.contains("It would fit with 7 vCPU less (3 instead of 10)."))
        #expect(shown.contains("Availability zone az2 has room for 6."))
        #expect(explanation.nearestFit?.zones == ["az2": 6])
        #expect("\(explanation.refusals)".contains("needs 10 VCPU, 3 of 4 free"))
        #expect(explanation.notes.map(\.host) == ["secret-1", "secret-3", "secret-2"])
    }

    @Test func requestsAreReadOrRefused() throws {
        let request = try SchedulingRequest(
            document: wanted(with: [
                "flavor_extra_specs": [
                    "resources:VGPU": "1", "trait:CUSTOM_A": "required", "aggregate_instance_extra_specs:ssd": "true",
                    "hw:cpu_policy": "dedicated",
                ],
                "image_properties": ["hw_architecture": "amd64", "min_disk": 5], "hardware_checked": true, "availability_zone": nil,
                "group": ["id": "g1", "policy": "anti-affinity", "rules": ["max_server_per_host": "2"], "members": []],
            ]))
        #expect(request.resources.map(\.resourceClass) == ["DISK_GB", "MEMORY_MB", "PCPU", "VGPU"])
        #expect(request.requiredTraits == ["CUSTOM_A"])
        #expect(request.aggregateSpecs == ["ssd": "true"])
        #expect(request.architecture == "x86_64")
        #expect(request.group?.maxPerHost == 2)
        for (name, value) in [
            ("operation_id", "x"), ("consumer_id", nil), ("resources", []), ("resources", ["VCPU": -1]), ("resources", ["VCPU": 0]),
            ("resources", ["VCPU": "many"]), ("group", ["id": "g", "policy": "wrong"]), ("same_host", ["x"]), ("dry_run", "yes"),
            ("host", 5), ("flavor_extra_specs", ["trait:X": "perhaps"]), ("required_traits", "A"),
        ] as [(String, JSONValue)] {
            let error = #expect(throws: ResourceError.self, "\(name)") { try SchedulingRequest(document: wanted(with: [name: value])) }
            #expect(error?.code == .badRequest)
        }
    }
}
