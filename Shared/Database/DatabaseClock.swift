import Kernel

extension Ambient {
    /// Now, by the database's clock: for every time that one process writes down and another one decides by. The clocks
    /// of processes may differ by hours. It is the moment at which the statement began, so that an index serves.
    package var databaseNow: SQL {
        if let now = time.databaseNow() { return "\(now)::timestamptz" }
        return "statement_timestamp()"
    }
}
