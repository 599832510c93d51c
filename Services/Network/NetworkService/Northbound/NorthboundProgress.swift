import NetworkCore

/// Changes that are read from the database and that OVN does not have yet.
struct PendingChanges {
    /// The changes that each subject belongs to.
    private var bySubject: [NBSubject: [Int]] = [:]
    /// How many subjects of each change are left.
    private var subjectsLeft: [Int: Int] = [:]
    /// Changes that OVN has, to be removed from the database.
    var applied: [Int] = []

    /// Those that OVN does not have.
    var known: [Int] { Array(subjectsLeft.keys) }

    mutating func add(_ change: NorthboundLedger.Change) {
        guard !change.subjects.isEmpty else {
            applied.append(change.id)
            return
        }
        subjectsLeft[change.id] = change.subjects.count
        for subject in change.subjects { bySubject[subject, default: []].append(change.id) }
    }

    /// The changes of subjects that are on their way to OVN.
    mutating func take(_ subjects: [NBSubject]) -> [NBSubject: [Int]] {
        var taken: [NBSubject: [Int]] = [:]
        for subject in subjects { taken[subject] = bySubject.removeValue(forKey: subject) }
        return taken
    }

    /// Their subjects did not arrive.
    mutating func giveBack(_ taken: [NBSubject: [Int]]) { bySubject.merge(taken) { $1 + $0 } }

    /// OVN has their subjects.
    mutating func complete(_ taken: [NBSubject: [Int]]) {
        for change in taken.values.joined() {
            let left = (subjectsLeft[change] ?? 1) - 1
            subjectsLeft[change] = left > 0 ? left : nil
            if left == 0 { applied.append(change) }
        }
    }
}

/// The comparison of everything.
struct NorthboundAudit {
    /// Subjects that it has still to compare, in order.
    var queue: ArraySlice<NBSubject> = []
    var isRunning = false
    /// Nil where everything is to be compared as soon as possible.
    var endedAt: UInt64?
    /// The number of the last request.
    var asked = 0
    /// The number of the last request that was followed.
    private(set) var heard = 0

    func isDue(_ now: UInt64, every interval: UInt64) -> Bool { endedAt.map { now - $0 > interval } ?? true }

    mutating func drop(_ subjects: [NBSubject]) {
        guard !queue.isEmpty else { return }
        let done = Set(subjects)
        queue = queue.drop { done.contains($0) }
    }

    mutating func end(_ now: UInt64) {
        isRunning = false
        endedAt = now
        heard = asked
    }
}
