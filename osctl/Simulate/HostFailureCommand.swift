import ArgumentParser
import Client
import Database
import JSON
import Kernel
import ServiceCatalog

/// `osctl simulate host-failure`: where servers would be placed if a host failed.
struct HostFailureCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "host-failure",
        abstract: "Show where servers would be placed if a host failed; with --now, let a simulated host fail and return.",
        discussion: """
            Asks the cloud's own scheduler about every server on the host, the largest first, each finding taken what the \
            earlier ones got; nothing is claimed or moved. Ends with status 1 when a server would find no place.
            With --now the host falls silent until the plane notices, and then comes back. The plane restarts nothing on \
            other hosts by itself: evacuation is not there yet.
            """)

    @Argument(help: "The host's name, as in: osctl hypervisor list")
    var host: String

    @ArgumentParser.Flag(help: "Let this simulated host fail now, watch, and let it return.")
    var now = false

    @Option(help: "With --now: timeout in seconds.")
    var timeout = 180

    @OptionGroup(title: "Output") var output: OutputOptions
    @OptionGroup var cloud: RehearsalOptions

    func validate() throws {
        guard (1...3600).contains(timeout) else { throw ValidationError("--timeout must be from 1 to 3600, not \(timeout)") }
        guard !host.isEmpty, !host.contains("/") else { throw ValidationError("\(host) is not the name of a host") }
    }

    func run() async throws {
        let (layout, client, database) = try cloud.open()
        defer { database.close() }
        do {
            let plan = try await HostFailurePlan.ask(client, host)
            guard now else {
                print(try plan.text(output), terminator: "")
                guard plan.isComplete else { throw ExitCode(1) }
                return
            }
            guard FleetProcess.running(layout) != nil else {
                throw CloudError("no simulated hosts run here; start some with: osctl simulate --hosts 20 --servers 100 --keep")
            }
            guard host.hasPrefix(SimulationRun.prefix + "-") else {
                throw CloudError("\(host) is not a simulated host; those are called \(SimulationRun.prefix)-00001 and so on")
            }
            let rehearsal = HostFailureRehearsal(
                layout: layout, client: client, database: database, host: host, timeout: timeout, tells: output.format == .table)
            if output.format == .table { Terminal.print(try plan.text(output)) }
            let result = try await rehearsal.run()
            if output.format != .table { print(try output.object(result.document(plan), fields: nil), terminator: "") }
            guard result.differences.isEmpty else { throw ExitCode(1) }
        } catch let error as ResourceError {
            throw CloudError(DemoCommand.words(error))
        }
    }
}

/// The scheduler's answer about all servers of a host.
struct HostFailurePlan: Sendable {
    let document: JSONValue

    /// - Throws: `ResourceError`, 404 if there is no such host.
    static func ask(_ client: RESTClient, _ host: String) async throws -> HostFailurePlan {
        let answer = try await client.post(.compute, "/os-wolke-scheduling/host-failure", ["host": .string(host)])
        return HostFailurePlan(document: answer["host_failure"] ?? .null)
    }

    private var host: String { document["host"]?.stringValue ?? "?" }
    var servers: [JSONValue] { document["servers"]?.arrayValue ?? [] }
    private var homeless: [JSONValue] { servers.filter { $0["result"]?.stringValue != "scheduled" } }
    var isComplete: Bool { homeless.isEmpty }
    /// Hosts that currently accept servers.
    var hostsInService: Int { document["capacity"]?["before"]?["hosts"]?.intValue ?? 0 }

    private static let columns = [
        OutputColumn("Server", "name"), OutputColumn("ID", "id"), OutputColumn("Flavor", "flavor"), OutputColumn("State", "vm_state"),
        OutputColumn("Would go to", "host") { $0["host"]?.stringValue ?? "nowhere" },
    ]

    func text(_ output: OutputOptions) throws -> String {
        switch output.format {
        case .json, .yaml: return try output.object(document, fields: nil)
        case .value: return try output.list(servers, columns: HostFailurePlan.columns)
        case .table: break
        }
        guard !servers.isEmpty else { return "\(host) has no servers: nothing would be moved.\n\n" + left }
        var text = "If \(host) failed, \(servers.count - homeless.count) of its \(servers.count) servers would find another host"
        text += homeless.isEmpty ? ".\n\n" : ", \(homeless.count) would not.\n\n"
        text += try output.list(servers, columns: HostFailurePlan.columns) + "\n"
        for (message, group) in Dictionary(grouping: homeless, by: { $0["message"]?.stringValue ?? "" }).sorted(by: { $0.key < $1.key }) {
            let names = group.prefix(5).compactMap { $0["name"]?.stringValue }.joined(separator: ", ")
            text += "\(group.count) × nowhere (\(names)\(group.count > 5 ? ", …" : "")): \(message)\n"
            text += SchedulingText.steps(group[0]) + "\n"
        }
        return text + left
    }

    /// The free capacity before and after.
    private var left: String {
        let classes = (document["capacity"]?["before"]?["resources"]?.objectValue?.names ?? []).sorted()
        let rows = [("now", "before"), ("without \(host)", "after")].map { title, member -> [String] in
            let side = document["capacity"]?[member]
            return [title, side?["hosts"]?.intValue.map { String($0) } ?? "?"]
                + classes.map { name in
                    let amounts = side?["resources"]?[name]
                    return "\(amounts?["free"]?.intValue ?? 0) of \(amounts?["capacity"]?.intValue ?? 0)"
                }
        }
        return TableText.list(["Free", "Hosts"] + classes, rows)
    }
}
