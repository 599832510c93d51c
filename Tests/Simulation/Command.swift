import Glibc
import Kernel

/// `wolke-simulate [--seed N | --from N --seeds N] [--verbose]`
enum Command {
    static func run(_ arguments: [String]) -> Int32 {
        var from: UInt64 = 1
        var count: UInt64 = 1
        var isVerbose = false
        var twice = false
        var rest = arguments[...]
        while let name = rest.popFirst() {
            switch name {
            case "--seed", "--from":
                guard let value = rest.popFirst().flatMap({ UInt64($0) }) else { return usage() }
                from = value
            case "--seeds":
                guard let value = rest.popFirst().flatMap({ UInt64($0) }) else { return usage() }
                count = value
            case "--verbose": isVerbose = true
            case "--twice": twice = true
            default: return usage()
            }
        }
        guard let server = getenv("WOLKE_TEST_PG").map({ String(cString: $0) }) else {
            print("WOLKE_TEST_PG must name a PostgreSQL server: deploy/test-postgres DIRECTORY COMMAND starts one")
            return 2
        }
        do {
            let store = try SimulatedStore(server: server)
            defer { store.drop(server: server) }
            var failed: [UInt64] = []
            for seed in from..<from + count {
                let run = Run(seed: seed, store: store, isVerbose: isVerbose)
                var result = run.execute()
                if twice {
                    let again = Run(seed: seed, store: store, isVerbose: isVerbose).execute()
                    if again.hash != result.hash { result.violations.append("the second run took another way") }
                }
                print(result)
                if !result.violations.isEmpty { failed.append(seed) }
            }
            print(failed.isEmpty ? "\(count) seeds clean" : "\(failed.count) of \(count) seeds failed: \(failed)")
            return failed.isEmpty ? 0 : 1
        } catch {
            print("\(error)")
            return 2
        }
    }

    private static func usage() -> Int32 {
        print("wolke-simulate [--seed N | --from N --seeds N] [--twice] [--verbose]")
        return 2
    }
}
