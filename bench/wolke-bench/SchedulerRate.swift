import ArgumentParser
import Kernel
import PlacementCore

/// The scheduler's decisions in memory, on one core, beside the simplest thing that could decide: a scan of all hosts.
struct SchedulerRate: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "scheduler", abstract: "Places servers in a fleet in memory; prints decisions per second.")

    @Option(help: "Hosts.")
    var hosts = 10_000

    @Option(help: "Servers that run on them.")
    var servers = 100_000

    @Option(help: "Seconds for each figure.")
    var seconds = 2

    @ArgumentParser.Flag(help: "Requests with anti-affinity groups, aggregates and traits.")
    var mixed = false

    func run() throws {
        let sample = SampleFleet(hosts: hosts, servers: servers)
        let time = Ambient().time
        var fleet = sample.fleet()
        let requests = (0..<512).map { _ in mixed ? sample.mixed(fleet) : sample.plain() }
        func rate(_ decide: (Int) -> Bool) -> (rate: Double, placed: Double) {
            var (count, placed) = (0, 0)
            let begun = time.monotonicNanoseconds()
            let end = begun + UInt64(seconds) * 1_000_000_000
            while time.monotonicNanoseconds() < end {
                for _ in 0..<16 {
                    if decide(count) { placed += 1 }
                    count += 1
                }
            }
            return (Double(count) * 1e9 / Double(time.monotonicNanoseconds() - begun), Double(placed) / Double(count))
        }
        // One server comes and the oldest of these goes, so that the fleet stays as full as it is.
        var running: [(place: Int, resources: [ResourceAmount])] = []
        var oldest = 0
        func place(_ count: Int, explaining: Bool) -> Bool {
            let (request, affinity) = requests[count % requests.count]
            guard let place = Scheduler.decide(&fleet, request, affinity, random: sample.random.next()) else { return false }
            if explaining { _ = Explanation(brief: &fleet, request, affinity) }
            fleet.charge(place, request.resources)
            running.append((place, request.resources))
            if running.count - oldest > 1000 {
                fleet.charge(running[oldest].place, running[oldest].resources, sign: -1)
                oldest += 1
            }
            return true
        }
        let ours = rate { place($0, explaining: false) }
        let explained = rate { place($0, explaining: true) }
        let scan = Scan(fleet)
        let bare = rate { count in scan.best(requests[count % requests.count].request.resources) != nil }
        print(
            """
            {"decisions_per_second": \(ours.rate), "placed": \(ours.placed),
            "explained_per_second": \(explained.rate), "scans_per_second": \(bare.rate)}
            """)
    }
}

/// Hosts and requests that are random, from a fixed seed, so that all runs have the same ones.
private struct SampleFleet {
    let hosts: Int
    let servers: Int
    let random = SeededRandom(seed: 11)
    private static let sizes = [(1, 1024, 10), (2, 4096, 20), (4, 8192, 40), (2, 2048, 20), (1, 2048, 5), (8, 16_384, 80)]
    private static let traits = ["HW_CPU_X86_AVX", "HW_CPU_X86_AVX2", "HW_CPU_X86_VMX", "CUSTOM_FAST_DISK", "CUSTOM_GPU"]

    init(hosts: Int, servers: Int) {
        self.hosts = hosts
        self.servers = servers
    }

    private func amounts() -> [ResourceAmount] {
        let (cpus, memory, disk) = SampleFleet.sizes[random.below(SampleFleet.sizes.count)]
        return [ResourceAmount("DISK_GB", disk), ResourceAmount("MEMORY_MB", memory), ResourceAmount("VCPU", cpus)]
    }

    func fleet() -> Fleet {
        let aggregates = (1...20).map { HostAggregate(id: $0, metadata: $0 % 2 == 0 ? ["ssd": "true"] : ["rack": "\($0)"]) }
        var states = (0..<hosts).map { number in
            HostState(
                id: random.uuid(), name: "host\(number)", zone: "az\(number % 3)", aggregates: [1 + number % 20],
                traits: Set(SampleFleet.traits.filter { _ in random.below(100) < 70 }), architecture: "x86_64",
                hypervisorType: "qemu",
                inventories: [
                    "VCPU": Inventory(total: 32, maxUnit: 32, allocationRatio: 2), "MEMORY_MB": Inventory(total: 131_072, maxUnit: 131_072),
                    "DISK_GB": Inventory(total: 1000, maxUnit: 1000),
                ])
        }
        var placed = 0
        while placed < servers {
            let place = random.below(hosts)
            let need = amounts()
            guard states[place].fits(need) else { continue }
            for item in need { states[place].used[item.resourceClass, default: 0] += item.amount }
            placed += 1
        }
        return Fleet(states, aggregates: aggregates)
    }

    func plain() -> (request: SchedulingRequest, affinity: AffinityContext) {
        var request = SchedulingRequest()
        request.consumerID = random.uuid()
        request.projectID = "project"
        request.resources = amounts()
        return (request, .none)
    }

    /// Ten members of a group on different hosts, half of the fleet's aggregates, traits and a zone.
    func mixed(_ fleet: Fleet) -> (request: SchedulingRequest, affinity: AffinityContext) {
        var (request, affinity) = plain()
        if random.below(2) == 0 {
            request.group = .init(id: "group", policy: .antiAffinity)
            for _ in 0..<10 { affinity.members[fleet.hosts[random.below(fleet.hosts.count)].id] = 1 }
        }
        if random.below(2) == 0 { request.aggregateMetadata = ["ssd": "true"] }
        if random.below(2) == 0 { request.zone = "az\(random.below(3))" }
        request.requiredTraits = [SampleFleet.traits[random.below(3)]]
        if random.below(3) == 0 { request.forbiddenTraits = ["CUSTOM_GPU"] }
        return (request, affinity)
    }
}

/// Looks at every host, in plain arrays.
private struct Scan {
    private var free: [[Int]]
    private static let classes = ["VCPU", "MEMORY_MB", "DISK_GB"]

    init(_ fleet: Fleet) { free = Scan.classes.map { name in fleet.hosts.map { $0.free(name) } } }

    func best(_ resources: [ResourceAmount]) -> Int? {
        let need = Scan.classes.map { name in resources.first { $0.resourceClass == name }?.amount ?? 0 }
        var (best, most) = (-1, -1)
        for place in free[0].indices {
            guard free[0][place] >= need[0], free[1][place] >= need[1], free[2][place] >= need[2] else { continue }
            if free[1][place] > most { (best, most) = (place, free[1][place]) }
        }
        return best < 0 ? nil : best
    }
}
