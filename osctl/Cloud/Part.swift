import Kernel

/// One supervised process of the cloud.
struct Part: Sendable {
    enum Group: String, Sendable { case infrastructure, wolke }

    let name: String
    let group: Group
    /// Where it answers, for people.
    let address: String
    let launch: Launch
    /// Parts (or milestones) that must be ready before this one starts.
    let needs: [String]
    var stopSignal: Int32 = 15
    var stopGrace: Duration = .seconds(10)
    /// How long it may take to answer before that counts as a problem.
    var readyWithin: Duration = .seconds(60)
    /// Runs before each start.
    var prepare: @Sendable () async throws -> Void = {}
    /// Asks the running part whether it does its work; returns its version, throws `CloudError` with what is wrong.
    var probe: @Sendable () async throws -> String
    /// Runs each time the part has become ready, before others may rely on it.
    var settle: @Sendable () async throws -> Void = {}
}

/// Something done once all that it needs is ready, such as migrating the database.
struct Milestone: Sendable {
    let name: String
    let needs: [String]
    /// Returns what there is to say about it.
    let work: @Sendable () async throws -> String
}

/// What the supervisor knows about a part; also what it writes down for `osctl status` and `osctl cloud down`.
struct PartRecord: Sendable {
    enum State: String, Sendable {
        case waiting, preparing, starting, ready, restarting, held, stopped
    }

    let name: String
    var state: State
    var process: ProcessIdentity?
    var startedAt: Timestamp?
    var restarts: Int
    var version = ""
    /// What went wrong last, in words; nil when nothing did.
    var problem: String?
    var outages = Outages()
}

/// How often a part was away since its supervisor started, and for how long.
struct Outages: Sendable, Equatable {
    var count = 0
    /// From the end of a process to the next one's being ready, in seconds; an outage that lasts is not in it.
    var seconds = 0.0
    /// Of the last one; nil when there was none.
    var lastAt: Timestamp?
    var lastReason = ""

    mutating func begin(at time: Timestamp, _ reason: String) {
        count += 1
        lastAt = time
        lastReason = reason
    }

    mutating func end(after seconds: Double) { self.seconds += seconds }

    /// In words; nil when there was none.
    func words(_ name: String, since: Timestamp?) -> String? {
        guard count > 0, let lastAt else { return nil }
        let tenths = Int(seconds * 10)
        let times = count == 1 ? "once" : "\(count) times"
        let from = since.map { " since \($0.iso8601)" } ?? ""
        return "\(name) was restarted \(times)\(from), away for \(tenths / 10).\(tenths % 10) s in all; "
            + "last at \(lastAt.iso8601): \(lastReason)"
    }
}
