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
}
