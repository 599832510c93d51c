import ArgumentParser
import Glibc

/// Runs a program with some directories replaced by others, seen by that program alone.
struct PrivateMounts: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "private-mounts", abstract: "Run a program with private directories in place of fixed ones.",
        shouldDisplay: false)

    @Option(help: "SOURCE:TARGET: the program sees SOURCE at TARGET.")
    var bind: [String] = []

    @Option(help: "The host name that the program sees.")
    var hostName: String?

    @Argument(parsing: .postTerminator, help: "The program (absolute path) and its arguments.")
    var command: [String]

    /// The program's start, as arguments: a new mount namespace, the mounts, the program.
    static func command(program: String, mounts: [(source: String, target: String)], hostName: String? = nil, _ arguments: [String]) -> [String] {
        var command = ["/usr/bin/unshare", "--mount", "--propagation", "private"]
        if hostName != nil { command.append("--uts") }
        command += [program, "cloud", "private-mounts"]
        if let hostName { command += ["--host-name", hostName] }
        for mount in mounts { command += ["--bind", "\(mount.source):\(mount.target)"] }
        return command + ["--"] + arguments
    }

    private static func namespace(_ process: String) -> String? {
        var buffer = [CChar](repeating: 0, count: 256)
        let count = readlink("/proc/\(process)/ns/mnt", &buffer, buffer.count)
        guard count > 0 else { return nil }
        return String(decoding: buffer[..<count].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }

    func run() throws {
        guard let program = command.first else { throw CloudError("no program given") }
        // What is mounted here must not reach the machine.
        guard let own = PrivateMounts.namespace("self"), own != PrivateMounts.namespace("1") else {
            throw CloudError("private-mounts must run in a mount namespace of its own (unshare --mount --propagation private)")
        }
        if let hostName { try Machine.write(descriptorOf: "/proc/sys/kernel/hostname", hostName) }
        for pair in bind {
            guard let colon = pair.firstIndex(of: ":") else { throw CloudError("--bind wants SOURCE:TARGET, not \(pair)") }
            let source = String(pair[..<colon])
            let target = String(pair[pair.index(after: colon)...])
            if !Machine.exists(target) { try Machine.makeDirectory(target) }
            guard mount(source, target, nil, UInt(MS_BIND), nil) == 0 else { throw Machine.failure("mount \(source) on", target) }
        }
        // This thread may be one that hears no signals; the program must.
        var none = sigset_t()
        sigemptyset(&none)
        pthread_sigmask(SIG_SETMASK, &none, nil)
        var argv: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        execv(program, &argv)
        throw Machine.failure("run", program)
    }
}
