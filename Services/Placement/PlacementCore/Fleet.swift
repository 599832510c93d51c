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

/// All hosts in memory, arranged for decisions: a column for each resource class, and for each kind of request the
/// hosts that it may get with an index over what they have free.
package struct Fleet: Sendable {
    package private(set) var hosts: [HostState] = []
    package private(set) var aggregates: [Int: HostAggregate] = [:]
    package private(set) var weights = SchedulingWeights()
    private var places: [UUID128: Int] = [:]
    private var names: [String: Int] = [:]
    private(set) var rooms: [Room] = []
    private(set) var columns: [ClassColumn] = []
    private var columnNumbers: [String: Int] = [:]
    private var shapes: [ShapeIndex] = []
    private var shapeNumbers: [RequestShape: Int] = [:]
    /// Places whose room changed, for the shapes to catch up with when they are next asked.
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
        rooms = hosts.map { Fleet.room($0, weights) }
        for place in hosts.indices { fillColumns(place) }
    }

    /// The host's index in `hosts`, by its provider's id.
    package func place(of id: UUID128) -> Int? { places[id] }
    /// The host's index in `hosts`, by its name.
    package func place(named name: String) -> Int? { names[name] }

    // MARK: changes

    /// Puts a host as it is now in the place of what was known of it.
    ///
    /// - Returns: false when the host is not known yet: load the fleet anew.
    @discardableResult
    package mutating func update(_ host: HostState) -> Bool {
        guard let place = places[host.id], hosts[place].name == host.name else { return false }
        if !hosts[place].isSameKind(as: host) { forgetShapes() }
        hosts[place] = host
        fillColumns(place)
        changed(place)
        return true
    }

    /// Counts resources as taken (or, negative, as given back).
    package mutating func charge(_ place: Int, _ resources: [ResourceAmount], sign: Int = 1) {
        for need in resources {
            hosts[place].used[need.resourceClass, default: 0] += sign * need.amount
            if let number = columnNumbers[need.resourceClass] { columns[number].free[place] -= sign * need.amount }
        }
        changed(place)
    }

    private mutating func changed(_ place: Int) {
        rooms[place] = Fleet.room(hosts[place], weights)
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

    // MARK: questions

    /// What hosts in service have and have left, by resource class.
    ///
    /// - Parameter excluded: names of hosts that are not counted.
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

    /// The request with what has to be looked up but once for all hosts.
    func inquiry(_ request: SchedulingRequest, _ around: Surroundings) -> Inquiry {
        Inquiry(
            request: request, around: around,
            needs: request.resources.map { Inquiry.Need(column: columnNumbers[$0.resourceClass], amount: $0.amount) })
    }

    /// Whether one allocation of what is asked fits on a host.
    func fits(_ place: Int, _ needs: [Inquiry.Need]) -> Bool {
        for need in needs {
            guard let column = need.column, columns[column].takes(place, need.amount) else { return false }
        }
        return true
    }

    /// The hosts that pass the filters of the request which do not depend on what runs where; kept for the next one
    /// that asks the same.
    mutating func withShape<Value>(_ inquiry: Inquiry, _ body: (inout ShapeIndex, Fleet) -> Value) -> Value {
        var shape = inquiry.request.shape
        if !isolates { shape.projectID = "" }
        if shapeNumbers[shape] == nil {
            if shapes.count >= Fleet.shapesMax { forgetShapes() }
            shapeNumbers[shape] = shapes.count
            shapes.append(ShapeIndex(self, inquiry, seen: changes.count))
        }
        guard let number = shapeNumbers[shape] else { preconditionFailure("the shape has just been added") }
        shapes[number].catchUp(changes, rooms)
        // Taken out for the moment, so that it is changed in place while the fleet is read.
        var index = ShapeIndex()
        swap(&index, &shapes[number])
        defer { swap(&index, &shapes[number]) }
        return body(&index, self)
    }
}

/// What hosts have of one resource class, by place.
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

/// A request as it is asked of many hosts.
struct Inquiry: Sendable {
    struct Need: Sendable {
        /// Nil where no host has the class.
        let column: Int?
        let amount: Int
    }

    let request: SchedulingRequest
    let around: Surroundings
    let needs: [Need]
}
