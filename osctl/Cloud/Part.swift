import Kernel

/// One supervised process of the cloud.
struct Part: Sendable {
    enum Group: String, Sendable { case infrastructure, wolke }

    let name: String
    let group: Group
    /// The address for display.
    let address: String
    let launch: Launch
    /// Parts (or milestones) that must be ready before this one starts.
    let needs: [String]
    var stopSignal: Int32 = 15
    var stopGrace: Duration = .seconds(10)
    /// How long the part may take to answer before this counts as a problem.
    var readyWithin: Duration = .seconds(60)
    /// Runs before each start.
    var prepare: @Sendable () async throws -> Void = {}
    /// Checks whether the running part works; returns its version, throws `CloudError` with the problem.
    var probe: @Sendable () async throws -> String
    /// Runs each time the part has become ready, before others depend on it.
    var settle: @Sendable () async throws -> Void = {}
}

/// An action that is run once its dependencies are ready, such as migrating the database.
struct Milestone: Sendable {
    let name: String
    let needs: [String]
    /// Returns a description of the result.
    let work: @Sendable () async throws -> String
}

/// The supervisor's record of a part, also written for `osctl status` and `osctl cloud down`.
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
    /// The latest problem; nil if there is none.
    var problem: String?
    var outages = Outages()
}

/// The number and duration of a part's outages since its supervisor started.
struct Outages: Sendable, Equatable {
    var count = 0
    /// Time from the end of a process until the next one was ready, in seconds, without a current outage.
    var seconds = 0.0
    /// The cause of the last outage; nil if there was none.
    var lastAt: Timestamp?
    var lastReason = ""

    mutating func begin(at time: Timestamp, _ reason: String) {
        count += 1
        lastAt = time
        lastReason = reason
    }

    mutating func end(after seconds: Double) { self.seconds += seconds }

    /// A description; nil if there was none.
    func words(_ name: String, since: Timestamp?) -> String? {
        guard count > 0, let lastAt else { return nil }
        let tenths = Int(seconds * 10)
        let times = count == 1 ? "once" : "\(count) times"
        let from = since.map { " since \($0.iso8601)" } ?? ""
        return "\(name) was restarted \(times)\(from), down for \(tenths / 10).\(tenths % 10) s in all; "
            + "last at \(lastAt.iso8601): \(lastReason)"
    }
}
