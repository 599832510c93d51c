import NetworkCore

/// Changes that were read from the database but are not yet applied to OVN.
struct PendingChanges {
    /// The changes to which each subject belongs.
    private var bySubject: [NBSubject: [Int]] = [:]
    /// The number of remaining subjects of each change.
    private var subjectsLeft: [Int: Int] = [:]
    /// Changes that are applied to OVN and can be deleted from the database.
    var applied: [Int] = []

    /// Changes that are not yet applied to OVN.
    var known: [Int] { Array(subjectsLeft.keys) }

    mutating func add(_ change: NorthboundLedger.Change) {
        guard !change.subjects.isEmpty else {
            applied.append(change.id)
            return
        }
        subjectsLeft[change.id] = change.subjects.count
        for subject in change.subjects { bySubject[subject, default: []].append(change.id) }
    }

    /// Removes and returns the changes of subjects that are being sent to OVN.
    mutating func take(_ subjects: [NBSubject]) -> [NBSubject: [Int]] {
        var taken: [NBSubject: [Int]] = [:]
        for subject in subjects { taken[subject] = bySubject.removeValue(forKey: subject) }
        return taken
    }

    /// Adds the changes again, because their subjects were not applied.
    mutating func giveBack(_ taken: [NBSubject: [Int]]) { bySubject.merge(taken) { $1 + $0 } }

    /// Completes the changes whose subjects are all applied to OVN.
    mutating func complete(_ taken: [NBSubject: [Int]]) {
        for change in taken.values.joined() {
            let left = (subjectsLeft[change] ?? 1) - 1
            subjectsLeft[change] = left > 0 ? left : nil
            if left == 0 { applied.append(change) }
        }
    }
}

/// The state of the audit, the full comparison.
struct NorthboundAudit {
    /// Subjects that are still to be compared, in order.
    var queue: ArraySlice<NBSubject> = []
    var isRunning = false
    /// Nil if an audit should start as soon as possible.
    var endedAt: UInt64?
    /// The number of the last request.
    var asked = 0
    /// The number of the last request that was fulfilled.
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
