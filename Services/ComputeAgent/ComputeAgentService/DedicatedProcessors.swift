import Kernel

/// The host's dedicated processors and the servers that have them. The servers' records preserve the assignment across restarts.
package actor DedicatedProcessors {
    private let all: [Int]
    private var owners: [String: [Int]] = [:]

    package init(_ all: [Int]) { self.all = all }

    /// Restores the assignment from a server's record.
    package func adopt(_ serverID: String, _ processors: [Int]) {
        owners[serverID] = processors.isEmpty ? nil : processors
    }

    /// Gives the server exactly `count` processors: as many as possible of its present ones, then the lowest free ones.
    ///
    /// - Throws: 503 if too few are free. A server that leaves the host releases its processors later than its claim.
    package func assign(_ count: Int, to serverID: String) throws -> [Int] {
        let kept = Array((owners[serverID] ?? []).filter(all.contains).prefix(count))
        let taken = Set(owners.filter { $0.key != serverID }.values.joined()).union(kept)
        let free = all.filter { !taken.contains($0) }
        guard kept.count + free.count >= count else {
            throw ResourceError.unavailable(
                "the host has \(free.count + kept.count) dedicated processors for \(serverID), which needs \(count)")
        }
        let processors = kept + free.prefix(count - kept.count)
        adopt(serverID, processors)
        return processors
    }

    /// The server has left the host.
    package func release(_ serverID: String) { owners[serverID] = nil }
}
