package import Kernel

extension Ambient {
    /// The database's clock. Use it for every time that one process writes and another compares, because the clocks of
    /// hosts may differ by hours. It is the statement's start time, which is constant within the statement and so can use
    /// an index.
    package var databaseNow: SQL {
        if let now = time.databaseNow() { return "\(now)::timestamptz" }
        return "statement_timestamp()"
    }
}
