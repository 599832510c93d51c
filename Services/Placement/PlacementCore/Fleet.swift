import Kernel

/// What makes a host attractive: the weights of what is free, as shares of what it has. Negative ones fill hosts up.
package struct SchedulingWeights: Sendable, Hashable {
    package var cpu: Double
    package var memory: Double
    package var disk: Double

    package init(cpu: Double = 1, memory: Double = 1, disk: Double = 1) {
        self.cpu = cpu
        self.memory = memory
        self.disk = disk
    }
}

/// All hosts in memory, arranged for decisions.
package struct Fleet: Sendable {
    package private(set) var hosts: [HostState] = []
    package private(set) var aggregates: [Int: HostAggregate] = [:]
    package private(set) var weights = SchedulingWeights()
    private var places: [UUID128: Int] = [:]
    private var names: [String: Int] = [:]
    private(set) var index = FreeIndex([])
    /// Hosts that pass the filters which do not depend on what is free, by what was asked.
    private var masks: [RequestShape: HostMask] = [:]

    /// Whether any aggregate is reserved for projects.
    private var isolates = false

    private static let masksMax = 256

    package init() {}

    package init(_ hosts: [HostState], aggregates: [HostAggregate] = [], weights: SchedulingWeights = SchedulingWeights()) {
        self.hosts = hosts
        self.aggregates = Dictionary(uniqueKeysWithValues: aggregates.map { ($0.id, $0) })
        isolates = aggregates.contains { $0.tenants != nil }
        self.weights = weights
        for (place, host) in hosts.enumerated() {
            places[host.id] = place
            names[host.name] = place
        }
        index = FreeIndex(hosts.map { Fleet.room($0, weights) })
    }

    package func place(of id: UUID128) -> Int? { places[id] }
    package func place(named name: String) -> Int? { names[name] }

    // MARK: changes

    /// Puts a host as it is now in the place of what was known of it.
    ///
    /// - Returns: false when the host is not known yet: load the fleet anew.
    @discardableResult
    package mutating func update(_ host: HostState) -> Bool {
        guard let place = places[host.id], hosts[place].name == host.name else { return false }
        if !hosts[place].isSameKind(as: host) { masks = [:] }
        hosts[place] = host
        index.update(place, Fleet.room(host, weights))
        return true
    }

    /// Counts resources as taken (or, negative, as given back).
    package mutating func charge(_ place: Int, _ resources: [ResourceAmount], sign: Int = 1) {
        for need in resources { hosts[place].used[need.resourceClass, default: 0] += sign * need.amount }
        index.update(place, Fleet.room(hosts[place], weights))
    }

    private static func room(_ host: HostState, _ weights: SchedulingWeights) -> Room {
        func share(_ resourceClass: String, _ weight: Double) -> (free: Int32, score: Double) {
            let capacity = host.inventories[resourceClass]?.capacity ?? 0
            let free = max(0, capacity - (host.used[resourceClass] ?? 0))
            return (Int32(clamping: free), capacity > 0 ? weight * Double(free) / Double(capacity) : 0)
        }
        let cpu = share("VCPU", weights.cpu)
        let memory = share("MEMORY_MB", weights.memory)
        let disk = share("DISK_GB", weights.disk)
        return Room(score: Float(cpu.score + memory.score + disk.score), cpus: cpu.free, memory: memory.free, disk: disk.free)
    }

    // MARK: eligible hosts

    /// The hosts that pass the filters of the request which do not depend on what is free.
    mutating func mask(_ request: SchedulingRequest) -> HostMask {
        var shape = request.shape
        if !isolates { shape.projectID = "" }
        if let known = masks[shape] { return known }
        var mask = HostMask(hosts: hosts.count)
        for place in hosts.indices where HostFilter.fixed.allSatisfy({ $0.passes(self, place, request, .none) }) {
            mask.insert(place)
        }
        if masks.count >= Fleet.masksMax { masks = [:] }
        masks[shape] = mask
        return mask
    }
}
