import Glibc
import Kernel

/// The process with the simulated hosts; a cloud has at most one.
struct FleetProcess: Sendable {
    let layout: CloudLayout
    private let process: ProcessIdentity

    var log: String { FleetProcess.log(layout) }

    private static func log(_ layout: CloudLayout) -> String { layout.log + "/simulated-hosts.log" }

    /// The process of an earlier command; nil if none runs.
    static func running(_ layout: CloudLayout) -> FleetProcess? {
        guard let text = Machine.readText(layout.fleetRecord), let process = ProcessIdentity(json: text), process.isRunning
        else { return nil }
        return FleetProcess(layout: layout, process: process)
    }

    /// Starts the process, replacing an earlier one. Simulated hosts get the list of their servers from the control plane.
    static func start(layout: CloudLayout, arguments: [String]) async throws -> FleetProcess {
        try await running(layout)?.stop()
        try Machine.makeDirectory(layout.silencedHosts)
        let program = try Machine.executablePath()
        let directory = program[..<(program.lastIndex(of: "/") ?? program.startIndex)]
        var environment = Machine.environment.filter { $0.key.hasPrefix("WOLKE_") }
        environment["PATH"] = Tool.searchPath
        environment["WOLKE_AGENT_HEARTBEAT_INTERVAL"] = "10s"
        let launch = Launch(
            arguments: [
                "\(directory)/wolke-compute-agent", "simulate", "--config", layout.configuration, "--southbound",
                "unix:" + layout.southboundSocket, "--silenced", layout.silencedHosts,
            ] + arguments, environment: environment, output: log(layout))
        let fleet = FleetProcess(layout: layout, process: try launch.spawn())
        try Machine.write(layout.fleetRecord, fleet.process.document + "\n")
        return fleet
    }

    var isRunning: Bool { process.isRunning }

    func stop() async throws {
        try await process.stop(SIGTERM, grace: .seconds(10), SystemTime())
        unlink(layout.fleetRecord)
    }
}
