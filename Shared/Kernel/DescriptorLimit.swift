import Glibc

/// How many files and sockets this process may have open.
package enum DescriptorLimit {
    /// Upper bound of the soft limit, even if the hard limit is higher: some child programs size tables by their limit.
    private static let wanted: rlim_t = 65_536

    /// Raises the soft limit (usually 1024, for programs that call `select`) to the hard one, at most to 65 536. Call it at
    /// the start of every executable. If the system refuses, the limit stays unchanged.
    ///
    /// - Returns: the limit now in force.
    @discardableResult
    package static func raise() -> Int {
        var limit = rlimit()
        guard getrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &limit) == 0 else { return 1024 }
        let target = min(limit.rlim_max, wanted)
        if limit.rlim_cur < target {
            var raised = rlimit(rlim_cur: target, rlim_max: limit.rlim_max)
            if setrlimit(__rlimit_resource_t(RLIMIT_NOFILE.rawValue), &raised) == 0 { return Int(target) }
        }
        return Int(min(limit.rlim_cur, 1 << 30))
    }

    /// Descriptors that accepted connections must leave free for files, database and broker sessions, logs, connections to other
    /// services, and the runtime.
    package static func reserve(of limit: Int) -> Int { max(128, limit / 8) }
}
