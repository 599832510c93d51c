/// A host's unallocated resources and the resulting score.
struct FreeCapacity: Sendable {
    var score: Float
    var cpus: Int32
    var memory: Int32
    var disk: Int32

    static let none = FreeCapacity(score: -.infinity, cpus: -1, memory: -1, disk: -1)

    /// Whether at least `need` is free.
    func covers(_ need: FreeCapacity) -> Bool { cpus >= need.cpus && memory >= need.memory && disk >= need.disk }
}

/// A tournament tree over the hosts: each inner node holds the maximum of its children, so that the host with the highest
/// score and enough free capacity is found by visiting few nodes. An update changes one path to the root.
struct FreeIndex: Sendable {
    private(set) var leaves: Int
    private var nodes: [FreeCapacity]

    init(_ freeCapacities: [FreeCapacity]) {
        leaves = 64
        while leaves < freeCapacities.count { leaves *= 2 }
        nodes = Array(repeating: .none, count: 2 * leaves)
        for (index, free) in freeCapacities.enumerated() { nodes[leaves + index] = free }
        for node in stride(from: leaves - 1, through: 1, by: -1) { nodes[node] = best(node) }
    }

    private func best(_ node: Int) -> FreeCapacity {
        let left = nodes[2 * node]
        let right = nodes[2 * node + 1]
        return FreeCapacity(
            score: max(left.score, right.score), cpus: max(left.cpus, right.cpus),
            memory: max(left.memory, right.memory), disk: max(left.disk, right.disk))
    }

    mutating func update(_ host: Int, _ free: FreeCapacity) {
        var node = leaves + host
        nodes[node] = free
        while node > 1 {
            node /= 2
            nodes[node] = best(node)
        }
    }

    /// The leaf with the highest score that is not in `excluded`, covers `need` and passes `accepts`.
    ///
    /// - Parameter random: bits that break ties between equal scores.
    func find(_ need: FreeCapacity, excluding excluded: HostMask, random: UInt64, accepts: (Int) -> Bool) -> Int? {
        nodes.withUnsafeBufferPointer { nodes in
            excluded.words.withUnsafeBufferPointer { words in
                search(nodes, words, need, random, accepts)
            }
        }
    }

    private func search(
        _ nodes: UnsafeBufferPointer<FreeCapacity>, _ words: UnsafeBufferPointer<UInt64>, _ need: FreeCapacity, _ random: UInt64,
        _ accepts: (Int) -> Bool
    ) -> Int? {
        var best: Int?
        var bestScore = -Float.infinity
        var coin = random
        return withUnsafeTemporaryAllocation(of: Int32.self, capacity: 128) { stack in
            stack[0] = 1
            var depth = 1
            while depth > 0 {
                depth -= 1
                let node = Int(stack[depth])
                let free = nodes[node]
                guard free.score > bestScore, free.covers(need) else { continue }
                if node >= leaves {
                    let host = node - leaves
                    if words[host >> 6] & (1 << UInt64(host & 63)) == 0, accepts(host) {
                        best = host
                        bestScore = free.score
                    }
                    continue
                }
                let left = nodes[2 * node].score
                let right = nodes[2 * node + 1].score
                let leftFirst = left == right ? coin & 1 == 0 : left > right
                coin = (coin >> 1) | (coin << 63)
                stack[depth] = Int32(leftFirst ? 2 * node + 1 : 2 * node)
                stack[depth + 1] = Int32(leftFirst ? 2 * node : 2 * node + 1)
                depth += 2
            }
            return best
        }
    }
}

/// A set of hosts, by their index in the fleet.
struct HostMask: Sendable {
    var words: [UInt64]

    /// An empty set for a fleet of `hosts` hosts.
    init(hosts: Int) { words = Array(repeating: 0, count: max(1, (hosts + 63) / 64)) }

    mutating func insert(_ host: Int) { words[host >> 6] |= 1 << UInt64(host & 63) }
}
