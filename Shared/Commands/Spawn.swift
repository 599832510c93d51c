import CLinux
import Glibc

/// Starts processes that inherit nothing but their arguments. Libraries open sockets without close-on-exec; an inherited socket
/// would stay open in the child, and the other end would not see it closed.
package enum Spawn {
    /// The process group and session of the child, which determine the signals it receives.
    package enum Group: Sendable {
        case inherited, own
        /// The child also has no terminal.
        case session
    }

    /// Starts a program; the caller must wait for it.
    ///
    /// - Parameters:
    ///   - arguments: the program, searched in this process's PATH if it has no slash, and its arguments.
    ///   - environment: the complete environment, as `NAME=value`.
    ///   - descriptors: become 0, 1, 2 and so on in the child; each must be at least 3 here; nil is `/dev/null`.
    /// - Returns: its process id.
    /// - Throws: `CommandError` if it cannot be started.
    package static func start(
        _ arguments: [String], environment: [String], descriptors: [Int32?] = [nil, nil, nil], group: Group = .inherited
    ) throws -> Int32 {
        var actions = posix_spawn_file_actions_t()
        posix_spawn_file_actions_init(&actions)
        defer { posix_spawn_file_actions_destroy(&actions) }
        for (number, descriptor) in descriptors.enumerated() {
            let number = Int32(number)
            if let descriptor {
                posix_spawn_file_actions_adddup2(&actions, descriptor, number)
            } else {
                posix_spawn_file_actions_addopen(&actions, number, "/dev/null", O_RDWR, 0)
            }
        }
        clinux_spawn_closefrom(&actions, Int32(descriptors.count))
        var attributes = posix_spawnattr_t()
        posix_spawnattr_init(&attributes)
        defer { posix_spawnattr_destroy(&attributes) }
        // The child starts without blocked or ignored signals.
        var signals = sigset_t()
        sigemptyset(&signals)
        posix_spawnattr_setsigmask(&attributes, &signals)
        sigfillset(&signals)
        posix_spawnattr_setsigdefault(&attributes, &signals)
        posix_spawnattr_setpgroup(&attributes, 0)
        let flags = Int32(POSIX_SPAWN_SETSIGMASK) | Int32(POSIX_SPAWN_SETSIGDEF) | group.flag
        posix_spawnattr_setflags(&attributes, Int16(flags))
        var vector: [UnsafeMutablePointer<CChar>?] = arguments.map { strdup($0) } + [nil]
        var variables: [UnsafeMutablePointer<CChar>?] = environment.map { strdup($0) } + [nil]
        defer { for text in vector + variables { free(text) } }
        var pid = pid_t()
        let problem = posix_spawnp(&pid, arguments[0], &actions, &attributes, &vector, &variables)
        guard problem == 0 else {
            throw CommandError(arguments: arguments, status: nil, output: String(cString: strerror(problem)))
        }
        return pid
    }

    /// Blocks until the process has ended.
    ///
    /// - Returns: its wait status; 0 if it succeeded.
    @discardableResult
    package static func wait(for pid: Int32) -> Int32 {
        var status: Int32 = 0
        while waitpid(pid, &status, 0) < 0, errno == EINTR {}
        return status
    }
}

extension Spawn.Group {
    /// A flag for `posix_spawnattr_setflags`; the imported headers hide `POSIX_SPAWN_SETSID`.
    fileprivate var flag: Int32 {
        switch self {
        case .inherited: 0
        case .own: Int32(POSIX_SPAWN_SETPGROUP)
        case .session: 0x80
        }
    }
}
