import Glibc

// The order of dictionaries affects a run, so it must be the same in every process.
if getenv("SWIFT_DETERMINISTIC_HASHING") == nil {
    setenv("SWIFT_DETERMINISTIC_HASHING", "1", 1)
    var arguments: [UnsafeMutablePointer<CChar>?] = CommandLine.arguments.map { strdup($0) }
    arguments.append(nil)
    execv("/proc/self/exe", arguments)
}
SimulationExecutor.install()
exit(SimulateArguments.run(Array(CommandLine.arguments.dropFirst())))
