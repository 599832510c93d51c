import Kernel

/// Decides which job gets the next free session.
///
/// - The control plane's own work may use all sessions; `reserved` of them are kept free for it.
/// - Tenants' requests share the rest: the project with the fewest running jobs is next, and no project runs more than
///   `projectMax` at a time, so that one project's slow statements cannot block the others.
struct SessionSchedule<Job: Sendable>: Sendable {
    enum Refusal: Sendable {
        /// Answered with 503: the whole queue is full.
        case queue
        /// Answered with 429: the project's share of the queue is full.
        case project
    }

    /// The queue in which a job waits.
    enum Place: Sendable {
        case plane(FairQueue<Job>.Ticket)
        case tenant(FairQueue<Job>.Ticket)
    }

    private let sessions: Int
    private let reserved: Int
    private let waitingMax: Int
    private let projectWaitingMax: Int
    private var plane: FairQueue<Job>
    private var tenants: FairQueue<Job>
    private var planeHadTurn = false
    private static var planeKey: String { "" }

    init(_ configuration: DatabaseConfiguration) {
        sessions = max(1, configuration.connectionsMax)
        reserved = max(0, min(configuration.reserved, sessions - 1))
        plane = FairQueue(runningMax: sessions)
        tenants = FairQueue(runningMax: min(configuration.projectMax, sessions - reserved))
        waitingMax = configuration.waitingMax
        projectWaitingMax = configuration.projectWaitingMax
    }

    var waiting: Int { plane.count + tenants.count }

    mutating func append(_ job: Job, _ lane: DatabaseScope.Lane) -> Result<Place, RefusalError> {
        switch lane {
        case .plane:
            guard plane.count < waitingMax else { return .failure(RefusalError(reason: .queue)) }
            return .success(.plane(plane.append(job, of: Self.planeKey)))
        case .tenant(let key):
            guard tenants.count(of: key) < projectWaitingMax else { return .failure(RefusalError(reason: .project)) }
            guard tenants.count < waitingMax else { return .failure(RefusalError(reason: .queue)) }
            return .success(.tenant(tenants.append(job, of: key)))
        }
    }

    struct RefusalError: Error {
        let reason: Refusal
    }

    /// The next job that may have a session, if any may.
    mutating func next() -> (job: Job, lane: DatabaseScope.Lane)? {
        guard plane.running + tenants.running < sessions else { return nil }
        if plane.running < reserved, let next = plane.next() { return (next.element, .plane) }
        let tenantsMay = tenants.running < sessions - reserved
        let planeFirst = !planeHadTurn || !tenantsMay
        if planeFirst, let next = plane.next() {
            planeHadTurn = true
            return (next.element, .plane)
        }
        planeHadTurn = false
        if tenantsMay, let next = tenants.next() { return (next.element, .tenant(next.key)) }
        if !planeFirst, let next = plane.next() { return (next.element, .plane) }
        return nil
    }

    mutating func finish(_ lane: DatabaseScope.Lane) {
        switch lane {
        case .plane: plane.finish(Self.planeKey)
        case .tenant(let key): tenants.finish(key)
        }
    }

    /// Removes a job that is still waiting.
    mutating func remove(_ place: Place) -> Job? {
        switch place {
        case .plane(let ticket): plane.remove(ticket)
        case .tenant(let ticket): tenants.remove(ticket)
        }
    }
}
