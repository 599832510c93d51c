import Glibc
import Kernel

/// The process that plays the simulated hosts.
struct FleetProcess: Sendable {
    let log: String
    private let process: ProcessIdentity

    static func start(layout: CloudLayout, arguments: [String]) throws -> FleetProcess {
        let program = try Machine.executablePath()
        let directory = program[..<(program.lastIndex(of: "/") ?? program.startIndex)]
        let log = layout.log + "/simulated-hosts.log"
        var environment = Machine.environment.filter { $0.key.hasPrefix("WOLKE_") }
        environment["PATH"] = Tool.searchPath
        environment["WOLKE_AGENT_HEARTBEAT_INTERVAL"] = "10s"
        let launch = Launch(
            arguments: [
                "\(directory)/wolke-compute-agent", "simulate", "--config", layout.configuration, "--southbound",
                "unix:" + layout.southboundSocket,
            ] + arguments, environment: environment, output: log)
        return FleetProcess(log: log, process: try launch.spawn())
    }

    var isRunning: Bool { process.isRunning }

    func stop() { if process.isRunning { kill(process.pid, SIGTERM) } }
}
