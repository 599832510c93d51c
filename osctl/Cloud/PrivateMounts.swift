import ArgumentParser
import Glibc

/// Runs a program with some directories replaced by others, seen by that program alone.
struct PrivateMounts: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "private-mounts", abstract: "Run a program with private directories in place of fixed ones.",
        shouldDisplay: false)

    @Option(help: "SOURCE:TARGET: the program sees SOURCE at TARGET.")
    var bind: [String] = []

    @Argument(parsing: .postTerminator, help: "The program (absolute path) and its arguments.")
    var command: [String]

    /// The program's start, as arguments: a new mount namespace, the mounts, the program.
    static func command(program: String, mounts: [(source: String, target: String)], _ arguments: [String]) -> [String] {
        ["/usr/bin/unshare", "--mount", "--propagation", "private", program, "cloud", "private-mounts"]
            + mounts.flatMap { ["--bind", "\($0.source):\($0.target)"] } + ["--"] + arguments
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
        for pair in bind {
            guard let colon = pair.firstIndex(of: ":") else { throw CloudError("--bind wants SOURCE:TARGET, not \(pair)") }
            let source = String(pair[..<colon])
            let target = String(pair[pair.index(after: colon)...])
            if !Machine.exists(target) { try Machine.makeDirectory(target) }
            guard mount(source, target, nil, UInt(MS_BIND), nil) == 0 else { throw Machine.failure("mount \(source) on", target) }
        }
        var argv: [UnsafeMutablePointer<CChar>?] = command.map { strdup($0) } + [nil]
        execv(program, &argv)
        throw Machine.failure("run", program)
    }
}
