import Kernel

/// The connection to PostgreSQL, and limits of its use.
package struct DatabaseConfiguration: Sendable {
    /// How long one statement may run, and how long it may wait for one lock.
    package struct TimeLimit: Sendable, Hashable {
        /// Nil for no limit.
        package var statement: Duration?
        package var lock: Duration?
        /// Whether the time limit applies to all statements of a job together instead of to each one.
        package var together = false

        package init(statement: Duration?, lock: Duration?, together: Bool = false) {
            self.statement = statement
            self.lock = lock
            self.together = together
        }
    }

    /// libpq connection string or URI.
    package var connectionString: String
    /// The program name that PostgreSQL shows for each session (`pg_stat_activity.application_name`); never empty, because a session
    /// without a name counts as one of release 0.1.0.
    package var applicationName = "wolke"
    /// Maximum number of sessions and threads. They are opened when needed.
    package var connectionsMax: Int
    /// Sessions reserved for the control plane's own work; at least one session is left for requests.
    package var reserved: Int
    /// Maximum number of sessions in use by the requests of one project.
    package var projectMax: Int
    /// Jobs that may wait for a session; more are refused with 503.
    package var waitingMax: Int
    /// Waiting jobs of one project; more are refused with 429.
    package var projectWaitingMax: Int

    package var requestRead = TimeLimit(statement: .seconds(10), lock: .seconds(5), together: true)
    package var requestWrite = TimeLimit(statement: .seconds(30), lock: .seconds(5), together: true)
    package var plane = TimeLimit(statement: .seconds(120), lock: .seconds(30))
    package var periodicTask = TimeLimit(statement: .seconds(600), lock: .seconds(30))
    /// A transaction idle for this long is ended by PostgreSQL together with its session.
    package var idleInTransaction: Duration = .seconds(60)

    package init(
        connectionString: String, connectionsMax: Int = 8, reserved: Int = 2, projectMax: Int = 3, waitingMax: Int = 10_000,
        projectWaitingMax: Int = 1000
    ) {
        self.connectionString = connectionString
        self.connectionsMax = connectionsMax
        self.reserved = reserved
        self.projectMax = projectMax
        self.waitingMax = waitingMax
        self.projectWaitingMax = projectWaitingMax
    }

    /// For commands of the operator on the machine (migrations, doctor): no limits.
    package func unlimited() -> DatabaseConfiguration {
        var copy = self
        let none = TimeLimit(statement: nil, lock: nil)
        (copy.requestRead, copy.requestWrite, copy.plane, copy.periodicTask) = (none, none, none, none)
        return copy
    }

    func limit(_ work: DatabaseScope.Work, isWrite: Bool) -> TimeLimit {
        switch work {
        case .request: isWrite ? requestWrite : requestRead
        case .plane: plane
        case .periodicTask: periodicTask
        }
    }
}
