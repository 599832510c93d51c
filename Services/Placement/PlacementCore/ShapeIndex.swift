/// The hosts that pass the filters of one request shape, with an index over their free capacity.
struct ShapeIndex: Sendable {
    /// Indexes of hosts in the fleet, ascending; the index has a leaf for each.
    private(set) var places: [Int32] = []
    /// The leaf of each host; −1 for a host that does not match the shape.
    private var leaves: [Int32] = []
    private var index = FreeIndex([])
    /// Number of the fleet's changes that have been applied.
    private var seen = 0
    /// The result of the fixed filters, which is the same for every request of this shape.
    private(set) var steps: [Explanation.Step] = []

    init() {}

    init(_ fleet: Fleet, _ prepared: PreparedRequest, seen: Int) {
        self.seen = seen
        var left = fleet.hosts.indices.map { Int32($0) }
        for filter in HostFilter.fixed where filter.isAsked(prepared.request) {
            let step = Explanation.apply(filter, to: &left, fleet, prepared)
            steps.append(step)
        }
        places = left
        leaves = Array(repeating: -1, count: fleet.hosts.count)
        for (leaf, place) in places.enumerated() { leaves[Int(place)] = Int32(leaf) }
        index = FreeIndex(places.map { fleet.freeCapacities[Int($0)] })
    }

    func contains(_ place: Int) -> Bool { leaves[place] >= 0 }

    mutating func catchUp(_ changes: [Int32], _ freeCapacities: [FreeCapacity]) {
        guard seen < changes.count else { return }
        for place in changes[seen...] where leaves[Int(place)] >= 0 {
            index.update(Int(leaves[Int(place)]), freeCapacities[Int(place)])
        }
        seen = changes.count
    }

    /// The host with the highest score and enough free capacity.
    func best(_ fleet: Fleet, _ prepared: PreparedRequest, excluding excluded: some Sequence<Int>, random: UInt64) -> Int? {
        var mask = HostMask(hosts: places.count)
        for place in excluded where leaves[place] >= 0 { mask.insert(Int(leaves[place])) }
        let leaf = index.find(prepared.request.need, excluding: mask, random: random) { leaf in
            fleet.fits(Int(places[leaf]), prepared.needs)
        }
        return leaf.map { Int(places[$0]) }
    }
}
