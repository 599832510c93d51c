import Glibc
import Kernel

/// `wolke-simulate [--seed N,N… | --from N --seeds N] [--processes N] [--twice] [--verbose]`
struct SimulateArguments {
    private var from: UInt64 = 1
    /// Seeds given individually.
    private var listed: [UInt64] = []
    private var count: UInt64 = 1
    private var processes: UInt64 = 1
    private var isVerbose = false
    private var isTwice = false

    static func run(_ arguments: [String]) -> Int32 {
        guard let command = SimulateArguments(arguments) else {
            print("wolke-simulate [--seed N,N… | --from N --seeds N] [--processes N] [--twice] [--verbose]")
            return 2
        }
        guard let server = getenv("WOLKE_TEST_PG").map({ String(cString: $0) }) else {
            print("WOLKE_TEST_PG must name a PostgreSQL server: deploy/test-postgres DIRECTORY COMMAND starts one")
            return 2
        }
        return command.processes > 1 && command.count > 1 && command.listed.isEmpty ? command.divide() : command.seeds(server)
    }

    private init?(_ arguments: [String]) {
        var rest = arguments[...]
        while let name = rest.popFirst() {
            switch name {
            case "--verbose": isVerbose = true
            case "--twice": isTwice = true
            case "--seed":
                for word in (rest.popFirst() ?? "").split(separator: ",") {
                    guard let seed = UInt64(word) else { return nil }
                    listed.append(seed)
                }
            case "--from", "--seeds", "--processes":
                guard let value = rest.popFirst().flatMap({ UInt64($0) }) else { return nil }
                switch name {
                case "--seeds": count = value
                case "--processes": processes = min(max(1, value), 64)
                default: from = value
                }
            default: return nil
            }
        }
    }

    // MARK: one process

    private func seeds(_ server: String) -> Int32 {
        do {
            let store = try SimulatedStore(server: server)
            defer { store.drop(server: server) }
            let scratch = try Scratch()
            defer { scratch.remove() }
            var failed: [UInt64] = []
            let seeds = listed.isEmpty ? Array(from..<from + count) : listed
            for seed in seeds where !one(seed, store) { failed.append(seed) }
            print(failed.isEmpty ? "\(seeds.count) seeds clean" : "\(failed.count) of \(seeds.count) seeds failed: \(failed)")
            return failed.isEmpty ? 0 : 1
        } catch {
            print("\(error)")
            return 2
        }
    }

    private func one(_ seed: UInt64, _ store: SimulatedStore) -> Bool {
        var result = Run(seed: seed, store: store, isVerbose: isVerbose).execute()
        if isTwice, Run(seed: seed, store: store, isVerbose: isVerbose).execute().hash != result.hash {
            result.violations.append("the second run took another way")
        }
        print(result)
        fflush(nil)
        return result.violations.isEmpty
    }

    // MARK: several processes

    /// Each process runs a range of the seeds; the exit code is the worst of theirs.
    private func divide() -> Int32 {
        let share = (count + processes - 1) / processes
        var children: [pid_t] = []
        for start in stride(from: from, to: from + count, by: Int(share)) {
            var arguments = ["--from", String(start), "--seeds", String(min(share, from + count - start))]
            if isVerbose { arguments.append("--verbose") }
            if isTwice { arguments.append("--twice") }
            let argv = (["wolke-simulate"] + arguments).map { strdup($0) } + [nil]
            var pid = pid_t()
            guard posix_spawn(&pid, "/proc/self/exe", nil, nil, argv, environ) == 0 else { return 2 }
            children.append(pid)
        }
        var worst: Int32 = 0
        for pid in children {
            var status: Int32 = 0
            while waitpid(pid, &status, 0) < 0, errno == EINTR {}
            worst = max(worst, status & 0x7f == 0 ? (status >> 8) & 0xff : 2)
        }
        return worst
    }
}
