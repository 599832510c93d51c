import ArgumentParser
import Client
import Database
import Glibc
import JSON
import Kernel
import Settings

/// `osctl simulate`: servers on a fleet of simulated hosts, through the real plane.
struct SimulateCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate",
        abstract: "Build many servers on simulated hosts with this cloud's real plane, and report how that went.",
        discussion: """
            Scheduler, database, broker and API are the cloud's own; only the hypervisors and, with ports, their chassis \
            are played by one process. The servers go to an aggregate and availability zone of the simulated hosts, so \
            nothing of it lands on a real host. Everything is deleted at the end unless --keep is given.
            """)

    @Option(help: "The cloud's state directory (or STATE in the environment).")
    var state: String = Machine.environment["STATE"] ?? ".state"

    @Option(help: "Hosts to play.")
    var hosts = 100

    @Option(help: "Servers to build.")
    var servers = 1000

    @Option(help: "Requests under way at a time.")
    var concurrency = 50

    @Option(help: "Milliseconds that a simulated start takes on average.")
    var startMs = 200

    @Option(help: "Of 1000 starts, how many fail.")
    var failuresPerMille = 0

    @Option(help: "Seconds after which it gives up.")
    var timeout = 600

    @ArgumentParser.Flag(help: "Leave servers and hosts there.")
    var keep = false

    @ArgumentParser.Flag(help: "Print the report as JSON.")
    var json = false

    func validate() throws {
        guard (1...2000).contains(hosts) else { throw ValidationError("--hosts must be from 1 to 2000, not \(hosts)") }
        guard (1...200_000).contains(servers) else { throw ValidationError("--servers must be from 1 to 200000, not \(servers)") }
        guard (1...500).contains(concurrency) else { throw ValidationError("--concurrency must be from 1 to 500, not \(concurrency)") }
    }

    func run() async throws {
        let layout = try CloudOptions.layout(state: state)
        guard SupervisorRecord.running(layout) != nil else {
            throw CloudError("no cloud runs in \(layout.state); start it with `make up`")
        }
        let secrets = try CloudSecrets.load(layout, Ambient())
        let settings = try Settings.load(path: layout.configuration, environment: Machine.environment, schema: .common)
        let database = Database(
            DatabaseConfiguration(connectionString: settings.requiredSecret("database.url").exposed, connectionsMax: 2))
        defer { database.close() }
        let run = SimulationRun(
            layout: layout, client: DemoCommand.client(layout, user: "admin", password: secrets.admin), database: database,
            ambient: Ambient(), plan: self)
        let fleet = try FleetProcess.start(
            layout: layout,
            arguments: [
                "--hosts", "\(hosts)", "--prefix", SimulationRun.prefix, "--start-ms", "\(startMs)", "--failures-per-mille",
                "\(failuresPerMille)",
            ])
        defer { if !keep { fleet.stop() } }
        let report: SimulationReport
        do { report = try await run.run() } catch {
            throw CloudError("\(DemoCommand.words(error))\nThe simulated hosts' log is \(fleet.log).")
        }
        print(json ? report.document.description : report.text)
        if !report.isClean { throw ExitCode(1) }
    }
}
