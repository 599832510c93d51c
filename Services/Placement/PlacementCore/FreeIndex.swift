/// What a host has left, and how attractive that makes it.
struct Room: Sendable {
    var score: Float
    var cpus: Int32
    var memory: Int32
    var disk: Int32

    static let none = Room(score: -.infinity, cpus: -1, memory: -1, disk: -1)

    /// At least this must be left.
    func covers(_ need: Room) -> Bool { cpus >= need.cpus && memory >= need.memory && disk >= need.disk }
}

/// A tournament over the hosts: each inner node has the best of what is below it, so that the most attractive host
/// with enough room is found by looking at few of them, and a change costs one path to the root.
struct FreeIndex: Sendable {
    private(set) var leaves: Int
    private var nodes: [Room]

    init(_ rooms: [Room]) {
        leaves = 64
        while leaves < rooms.count { leaves *= 2 }
        nodes = Array(repeating: .none, count: 2 * leaves)
        for (index, room) in rooms.enumerated() { nodes[leaves + index] = room }
        for node in stride(from: leaves - 1, through: 1, by: -1) { nodes[node] = best(node) }
    }

    private func best(_ node: Int) -> Room {
        let left = nodes[2 * node]
        let right = nodes[2 * node + 1]
        return Room(
            score: max(left.score, right.score), cpus: max(left.cpus, right.cpus),
            memory: max(left.memory, right.memory), disk: max(left.disk, right.disk))
    }

    mutating func update(_ host: Int, _ room: Room) {
        var node = leaves + host
        nodes[node] = room
        while node > 1 {
            node /= 2
            nodes[node] = best(node)
        }
    }

    /// The leaf with the highest score among those not in `excluded` with room for `need` that `accepts` takes.
    ///
    /// - Parameter random: its bits order leaves with equal scores.
    func find(_ need: Room, excluding excluded: HostMask, random: UInt64, accepts: (Int) -> Bool) -> Int? {
        nodes.withUnsafeBufferPointer { nodes in
            excluded.words.withUnsafeBufferPointer { words in
                search(nodes, words, need, random, accepts)
            }
        }
    }

    private func search(
        _ nodes: UnsafeBufferPointer<Room>, _ words: UnsafeBufferPointer<UInt64>, _ need: Room, _ random: UInt64,
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
                let room = nodes[node]
                guard room.score > bestScore, room.covers(need) else { continue }
                if node >= leaves {
                    let host = node - leaves
                    if words[host >> 6] & (1 << UInt64(host & 63)) == 0, accepts(host) {
                        best = host
                        bestScore = room.score
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

/// A set of hosts by their place in the fleet.
struct HostMask: Sendable {
    var words: [UInt64]

    /// None of so many.
    init(hosts: Int) { words = Array(repeating: 0, count: max(1, (hosts + 63) / 64)) }

    mutating func insert(_ host: Int) { words[host >> 6] |= 1 << UInt64(host & 63) }
}
