package import Kernel

/// Weights for the free share of each resource of a host. Negative weights pack servers onto few hosts.
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

/// All hosts in memory, arranged for scheduling: one column per resource class, and for each request shape the hosts that
/// pass its filters with an index over their free capacity.
package struct Fleet: Sendable {
    package private(set) var hosts: [HostState] = []
    package private(set) var aggregates: [Int: HostAggregate] = [:]
    package private(set) var weights = SchedulingWeights()
    private var places: [UUID128: Int] = [:]
    private var names: [String: Int] = [:]
    private(set) var freeCapacities: [FreeCapacity] = []
    private(set) var columns: [ClassColumn] = []
    private var columnNumbers: [String: Int] = [:]
    private var shapes: [ShapeIndex] = []
    private var shapeNumbers: [RequestShape: Int] = [:]
    /// Indexes of hosts whose free capacity changed; each shape catches up when it is next used.
    private var changes: [Int32] = []
    /// Whether any aggregate is reserved for projects.
    private(set) var isolates = false

    private static let shapesMax = 64
    private static let changesMax = 1 << 16

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
        freeCapacities = hosts.map { Fleet.freeCapacity($0, weights) }
        for place in hosts.indices { fillColumns(place) }
    }

    /// The host's index in `hosts`, by its provider's id.
    package func place(of id: UUID128) -> Int? { places[id] }
    /// The host's index in `hosts`, by its name.
    package func place(named name: String) -> Int? { names[name] }

    // MARK: changes

    /// Replaces the state of a host.
    ///
    /// - Returns: false if the host is unknown; the fleet must then be reloaded.
    @discardableResult
    package mutating func update(_ host: HostState) -> Bool {
        guard let place = places[host.id], hosts[place].name == host.name else { return false }
        if !hosts[place].isSameKind(as: host) { forgetShapes() }
        hosts[place] = host
        fillColumns(place)
        changed(place)
        return true
    }

    /// Adds to a host's used resources; negative amounts release them.
    package mutating func charge(_ place: Int, _ resources: [ResourceAmount], sign: Int = 1) {
        for need in resources {
            hosts[place].used[need.resourceClass, default: 0] += sign * need.amount
            if let number = columnNumbers[need.resourceClass] { columns[number].free[place] -= sign * need.amount }
        }
        changed(place)
    }

    private mutating func changed(_ place: Int) {
        freeCapacities[place] = Fleet.freeCapacity(hosts[place], weights)
        guard !shapes.isEmpty else { return }
        if changes.count >= Fleet.changesMax { forgetShapes() } else { changes.append(Int32(place)) }
    }

    private mutating func forgetShapes() {
        shapes = []
        shapeNumbers = [:]
        changes = []
    }

    private mutating func fillColumns(_ place: Int) {
        for name in hosts[place].inventories.keys where columnNumbers[name] == nil {
            columnNumbers[name] = columns.count
            columns.append(ClassColumn(hosts: hosts.count))
        }
        for (name, number) in columnNumbers {
            columns[number].set(place, hosts[place].inventories[name], used: hosts[place].used[name] ?? 0)
        }
    }

    private static func freeCapacity(_ host: HostState, _ weights: SchedulingWeights) -> FreeCapacity {
        func share(_ resourceClass: String, _ weight: Double) -> (free: Int32, score: Double) {
            let capacity = host.inventories[resourceClass]?.capacity ?? 0
            let free = max(0, capacity - (host.used[resourceClass] ?? 0))
            return (Int32(clamping: free), capacity > 0 ? weight * Double(free) / Double(capacity) : 0)
        }
        let cpu = share("VCPU", weights.cpu)
        let memory = share("MEMORY_MB", weights.memory)
        let disk = share("DISK_GB", weights.disk)
        return FreeCapacity(score: Float(cpu.score + memory.score + disk.score), cpus: cpu.free, memory: memory.free, disk: disk.free)
    }

    // MARK: queries

    /// Total and free capacity of the hosts in service, by resource class.
    ///
    /// - Parameter excluded: names of hosts to leave out.
    package func capacity(without excluded: Set<String>) -> (hosts: Int, classes: [String: (capacity: Int, free: Int)]) {
        var classes: [String: (capacity: Int, free: Int)] = [:]
        let counted = hosts.filter { $0.outage == nil && !excluded.contains($0.name) }
        for host in counted {
            for (name, inventory) in host.inventories {
                classes[name, default: (0, 0)].capacity += inventory.capacity
                classes[name, default: (0, 0)].free += host.free(name)
            }
        }
        return (counted.count, classes)
    }

    /// The request with look-ups resolved once instead of once per host.
    func prepared(_ request: SchedulingRequest, _ affinity: AffinityContext) -> PreparedRequest {
        PreparedRequest(
            request: request, affinity: affinity,
            needs: request.resources.map { PreparedRequest.Need(column: columnNumbers[$0.resourceClass], amount: $0.amount) })
    }

    /// Whether the requested amounts fit on a host.
    func fits(_ place: Int, _ needs: [PreparedRequest.Need]) -> Bool {
        for need in needs {
            guard let column = need.column, columns[column].takes(place, need.amount) else { return false }
        }
        return true
    }

    /// Calls `body` with the index of hosts that pass the request's placement-independent filters. The index is cached for
    /// further requests of the same shape.
    mutating func withShape<Value>(_ prepared: PreparedRequest, _ body: (inout ShapeIndex, Fleet) -> Value) -> Value {
        var shape = prepared.request.shape
        if !isolates { shape.projectID = "" }
        if shapeNumbers[shape] == nil {
            if shapes.count >= Fleet.shapesMax { forgetShapes() }
            shapeNumbers[shape] = shapes.count
            shapes.append(ShapeIndex(self, prepared, seen: changes.count))
        }
        guard let number = shapeNumbers[shape] else { preconditionFailure("the shape has just been added") }
        shapes[number].catchUp(changes, freeCapacities)
        // Move the index out so that `body` can change it in place while it reads the fleet.
        var index = ShapeIndex()
        swap(&index, &shapes[number])
        defer { swap(&index, &shapes[number]) }
        return body(&index, self)
    }
}

/// The hosts' inventories of one resource class, by host index.
struct ClassColumn: Sendable {
    var free: [Int]
    var minUnit: [Int32]
    var maxUnit: [Int32]
    var stepSize: [Int32]

    init(hosts: Int) {
        free = Array(repeating: 0, count: hosts)
        minUnit = Array(repeating: 1, count: hosts)
        maxUnit = Array(repeating: 0, count: hosts)
        stepSize = Array(repeating: 1, count: hosts)
    }

    mutating func set(_ place: Int, _ inventory: Inventory?, used: Int) {
        free[place] = (inventory?.capacity ?? 0) - used
        minUnit[place] = Int32(clamping: inventory?.minUnit ?? 1)
        maxUnit[place] = Int32(clamping: inventory?.maxUnit ?? 0)
        stepSize[place] = Int32(clamping: inventory?.stepSize ?? 1)
    }

    func takes(_ place: Int, _ amount: Int) -> Bool {
        amount <= free[place] && amount <= Int(maxUnit[place]) && amount >= Int(minUnit[place])
            && (stepSize[place] == 1 || amount % Int(stepSize[place]) == 0)
    }
}

/// A request prepared for evaluation on many hosts.
struct PreparedRequest: Sendable {
    struct Need: Sendable {
        /// Nil if no host has the resource class.
        let column: Int?
        let amount: Int
    }

    let request: SchedulingRequest
    let affinity: AffinityContext
    let needs: [Need]
}
