import ArgumentParser
import Client
import Database
import Glibc
import JSON
import Kernel
import Settings

/// `osctl simulate`: rehearsals with simulated hosts and the real control plane.
struct SimulateCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "simulate", abstract: "Rehearse with simulated hosts and this cloud's control plane.",
        subcommands: [SimulateServers.self, HostFailureCommand.self, EndSimulation.self], defaultSubcommand: SimulateServers.self)
}

/// Selects the cloud, with operator access to it.
struct RehearsalOptions: ParsableArguments {
    @Option(help: "The cloud's state directory (or STATE in the environment).")
    var state: String = Machine.environment["STATE"] ?? ".state"

    /// - Throws: `CloudError` if no cloud runs there.
    func open() throws -> (layout: CloudLayout, client: RESTClient, database: Database) {
        let layout = try CloudOptions.layout(state: state)
        guard SupervisorRecord.running(layout) != nil else {
            throw CloudError("no cloud runs in \(layout.state); start it with `make up`, or name its directory with --state")
        }
        let secrets = try CloudSecrets.load(layout, Ambient())
        let settings = try Settings.load(path: layout.configuration, environment: Machine.environment, schema: .database)
        let database = Database(
            DatabaseConfiguration(connectionString: settings.requiredSecret("database.url").exposed, connectionsMax: 2))
        return (layout, DemoCommand.client(layout, user: "admin", password: secrets.admin), database)
    }
}

/// `osctl simulate [servers]`: builds many servers on simulated hosts.
struct SimulateServers: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "servers",
        abstract: "Build many servers on simulated hosts with this cloud's control plane, and report the results.",
        discussion: """
            Scheduler, database, broker and API are the cloud's own; only the hypervisors and, with ports, their chassis \
            are played by one process. The servers go to an aggregate and availability zone of the simulated hosts, so \
            nothing of it lands on a real host. Everything is deleted at the end unless --keep is given; then \
            `osctl simulate end` does that.
            """)

    @OptionGroup var cloud: RehearsalOptions

    @Option(help: "Number of simulated hosts.")
    var hosts = 100

    @Option(help: "Number of servers to build.")
    var servers = 1000

    @Option(help: "Number of concurrent requests.")
    var concurrency = 50

    @ArgumentParser.Flag(help: "Each of these waits until its server is built before it requests the next one.")
    var follow = false

    @Option(help: "Average duration of a simulated start in milliseconds.")
    var startMs = 200

    @Option(help: "Number of failures per 1000 starts.")
    var failuresPerMille = 0

    @Option(help: "Timeout in seconds.")
    var timeout = 600

    @ArgumentParser.Flag(help: "Keep servers and hosts.")
    var keep = false

    @ArgumentParser.Flag(help: "Print the report as JSON.")
    var json = false

    func validate() throws {
        guard (1...2000).contains(hosts) else { throw ValidationError("--hosts must be from 1 to 2000, not \(hosts)") }
        guard (1...200_000).contains(servers) else { throw ValidationError("--servers must be from 1 to 200000, not \(servers)") }
        guard (1...500).contains(concurrency) else { throw ValidationError("--concurrency must be from 1 to 500, not \(concurrency)") }
    }

    func run() async throws {
        let (layout, client, database) = try cloud.open()
        defer { database.close() }
        let run = SimulationRun(
            layout: layout, client: client, database: database, ambient: Ambient(), plan: self)
        let fleet = try await FleetProcess.start(
            layout: layout,
            arguments: [
                "--hosts", "\(hosts)", "--prefix", SimulationRun.prefix, "--start-ms", "\(startMs)", "--failures-per-mille",
                "\(failuresPerMille)",
            ])
        let report: SimulationReport
        do { report = try await run.run() } catch {
            if !keep { try await fleet.stop() }
            throw CloudError("\(DemoCommand.words(error))\nThe simulated hosts' log is \(fleet.log).")
        }
        if !keep { try await fleet.stop() }
        print(json ? report.document.description : report.text)
        if keep, !json {
            print(
                """
                Servers and hosts are still there: `osctl simulate host-failure HOST` shows what would become of \
                them, `osctl simulate end` removes them.
                """
            )
        }
        if !report.isClean { throw ExitCode(1) }
    }
}

/// `osctl simulate end`: removes what `--keep` kept.
struct EndSimulation: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "end", abstract: "Delete the simulated servers and hosts that --keep kept, and end their process.")

    @OptionGroup var cloud: RehearsalOptions

    func run() async throws {
        let (layout, client, database) = try cloud.open()
        defer { database.close() }
        let plan = try SimulateServers.parse([])
        do {
            try await SimulationRun(layout: layout, client: client, database: database, ambient: Ambient(), plan: plan).end()
        } catch { throw CloudError(DemoCommand.words(error)) }
        try await FleetProcess.running(layout)?.stop()
        print("The simulated servers and hosts are gone.")
    }
}
