import ArgumentParser
import JSON
import Kernel
import ServiceCatalog

/// `osctl status`: the state and problems of every part of the one-machine cloud.
struct StatusCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "status", abstract: "Show every part of the cloud on this machine: health, version, memory, problems.",
        discussion: "The exit code is 0 if there are no problems, 1 if there are, 3 if no cloud runs.")

    enum Format: String, ExpressibleByArgument, CaseIterable { case table, json }

    @OptionGroup var options: CloudOptions
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json.")
    var format: Format = .table

    func run() async throws {
        let layout = try options.layout()
        let isSupervised = SupervisorRecord.running(layout) != nil
        let parts = await StatusReport.collect(layout)
        switch format {
        case .json: print(StatusReport.json(layout, isSupervised: isSupervised, parts).description)
        case .table: print(StatusReport.table(layout, isSupervised: isSupervised, parts))
        }
        if !parts.contains(where: { $0.pid != nil }) { throw ExitCode(3) }
        if !isSupervised || parts.contains(where: { $0.problem != nil }) { throw ExitCode(1) }
    }
}

/// The current state of a part.
struct PartStatus: Sendable {
    let name: String
    let group: String
    let health: String
    let version: String
    let pid: Int32?
    /// Proportional set size including child processes, in bytes.
    let memory: Int?
    let restarts: Int
    let outages: Outages
    let address: String
    let problem: String?
    let log: String
}

/// Collects and renders the state of all parts.
enum StatusReport {
    static func collect(_ layout: CloudLayout) async -> [PartStatus] {
        let children = ProcessTree.childrenByParent()
        let recorded = RecordedPart.all(layout)
        return await withTaskGroup(of: (Int, PartStatus).self) { tasks in
            for (index, part) in recorded.enumerated() {
                tasks.addTask { (index, await status(part, layout, children)) }
            }
            var found: [(Int, PartStatus)] = []
            for await status in tasks { found.append(status) }
            return found.sorted { $0.0 < $1.0 }.map(\.1)
        }
    }

    private static func status(_ part: RecordedPart, _ layout: CloudLayout, _ children: [Int32: [Int32]]) async -> PartStatus {
        var health = part.state
        var version = part.version
        var problem = part.problem
        let process = part.process.flatMap { $0.isRunning ? $0 : nil }
        if process == nil {
            health = ["waiting", "restarting", "held"].contains(part.state) ? part.state : "stopped"
            problem = problem ?? (part.state == "waiting" ? "waits for the parts that it needs" : "is not running")
        } else if part.group == Part.Group.wolke.rawValue {
            do {
                let place = place(part.address)
                let answer = try await Probe.http(host: place.host, port: operatorPort(part, place.port), path: "/readyz")
                health = answer.status == 200 ? "healthy" : "not ready"
                problem = answer.status == 200 ? nil : "not ready (\(answer.status)): \(oneLine(answer.body))"
                version = try await Cloud.release(host: place.host, port: operatorPort(part, place.port)) ?? part.version
            } catch {
                health = "no answer"
                problem = "does not answer: \(error)"
            }
        } else if part.state == "ready" {
            problem = await infrastructureProblem(part, layout)
            health = problem == nil ? "healthy" : "unhealthy"
        }
        let memory = process.map { process in
            ProcessTree.family(process.pid, children).compactMap { ProcessIdentity.current($0)?.proportionalMemory }.reduce(0, +)
        }
        return PartStatus(
            name: part.name, group: part.group, health: health, version: version, pid: process?.pid, memory: memory,
            restarts: part.restarts, outages: part.outages, address: part.address, problem: problem, log: part.log)
    }

    private static func infrastructureProblem(_ part: RecordedPart, _ layout: CloudLayout) async -> String? {
        do {
            let name = part.name.prefix { $0 != "@" }
            let host = layout.hosts.first { $0.partSuffix == part.name.dropFirst(name.count) } ?? layout.machine
            switch name {
            case "postgres":
                try await Tool.require([
                    StoreParts.postgresBinaries + "/pg_isready", "-q", "-h", layout.postgres + "/run", "-p", "\(layout.postgresPort)",
                ])
            case "rabbitmq": _ = try await Probe.amqp(port: layout.amqpPort)
            case "ovsdb-switch": try await Probe.ovsdb(socket: host.vswitchSocket)
            case "ovs-vswitchd": try await NetworkParts(layout: layout, host: host).start.check()
            case "ovn-northbound": try await Probe.ovsdb(socket: layout.northboundSocket)
            case "ovn-southbound": try await Probe.ovsdb(socket: layout.southboundSocket)
            case "libvirtd": try await Tool.require(["virsh", "-c", host.libvirtURI, "version"])
            default: break
            }
            return nil
        } catch {
            return "does not answer: \(error)"
        }
    }

    /// The port on which a part gives the reasons for not being ready: APIs do so only on the operators' port.
    private static func operatorPort(_ part: RecordedPart, _ port: Int) -> Int {
        CloudService.processes.contains { $0.executable == part.name } ? port + CloudService.operatorPortDistance : port
    }

    /// Host and port of `http://HOST:PORT`.
    private static func place(_ address: String) -> (host: String, port: Int) {
        let pieces = address.replacing("http://", with: "").split(separator: ":")
        return (String(pieces.first ?? ""), pieces.last.flatMap { Int($0) } ?? 0)
    }

    private static func oneLine(_ text: String) -> String { String(text.prefix(300)).replacing("\n", with: " ") }

    static func megabytes(_ bytes: Int) -> String { "\((bytes + (1 << 19)) >> 20) MB" }

    static func table(_ layout: CloudLayout, isSupervised: Bool, _ parts: [PartStatus]) -> String {
        guard !parts.isEmpty else { return "There is no cloud in \(layout.state). `make up` creates one." }
        if !isSupervised, parts.allSatisfy({ $0.pid == nil }) {
            return "The cloud in \(layout.state) is stopped. `make up` starts it."
        }
        var text = Text.table(
            ["PART", "HEALTH", "VERSION", "PID", "MEMORY", "RESTARTS", "WHERE"],
            parts.map { part in
                [
                    part.name, part.health, part.version, part.pid.map { String($0) } ?? "-", part.memory.map(megabytes) ?? "-",
                    String(part.restarts), part.address,
                ]
            })
        let sum = { (group: Part.Group) in parts.filter { $0.group == group.rawValue }.compactMap(\.memory).reduce(0, +) }
        text +=
            "\n\nMemory (PSS): Wolke \(megabytes(sum(.wolke))), PostgreSQL, RabbitMQ, OVN and libvirt \(megabytes(sum(.infrastructure)))"
        if let supervisor = SupervisorRecord.running(layout)?.process, let memory = supervisor.proportionalMemory {
            text += "; the supervisor (process \(supervisor.pid)) \(megabytes(memory))"
        }
        if !isSupervised { text += "\nThe supervisor does not run: nothing is restarted. `make up` starts it." }
        if FleetProcess.running(layout) != nil { text += "\nSimulated hosts run too; `osctl simulate end` removes them." }
        let since = RecordedPart.since(layout)
        for words in parts.compactMap({ $0.outages.words($0.name, since: since) }) { text += "\n" + words }
        let problems = parts.filter { $0.problem != nil }
        if problems.isEmpty, isSupervised { text += "\nEverything is well." }
        for part in problems { text += "\n\(part.name): \(part.problem ?? "") (log: \(part.log))" }
        return text
    }

    static func json(_ layout: CloudLayout, isSupervised: Bool, _ parts: [PartStatus]) -> JSONValue {
        [
            "state": .string(layout.state), "port_offset": JSONValue(layout.portOffset), "supervised": .bool(isSupervised),
            "healthy": .bool(isSupervised && !parts.isEmpty && parts.allSatisfy { $0.problem == nil }),
            "since": JSONValue(RecordedPart.since(layout)?.iso8601),
            "parts": .array(
                parts.map { part in
                    [
                        "name": .string(part.name), "group": .string(part.group), "health": .string(part.health),
                        "version": .string(part.version), "pid": part.pid.map { JSONValue(Int($0)) } ?? nil,
                        "memory_bytes": part.memory.map { JSONValue($0) } ?? nil, "restarts": JSONValue(part.restarts),
                        "outages": part.outages.json,
                        "address": .string(part.address), "problem": JSONValue(part.problem), "log": .string(part.log),
                    ]
                }),
        ]
    }
}

/// The last lines of the output of `osctl cloud up`.
enum Summary {
    static func text(_ layout: CloudLayout, seconds: Double, program: String) -> String {
        let rows = RecordedPart.all(layout).map { part in
            [part.name, part.version, part.process.map { String($0.pid) } ?? "-", part.address]
        }
        let tenths = Int(seconds * 10)
        return """

            \(Text.table(["PART", "VERSION", "PID", "WHERE"], rows))

            The cloud is ready after \(tenths / 10).\(tenths % 10) s.
              state       \(layout.state)
              logs        \(layout.log)
              external    \(layout.externalNetwork), this machine is \(layout.externalAddress(1)) on \(layout.externalBridge)
              clouds.yaml \(layout.clouds) (clouds wolke-admin and wolke-demo)

            Next: `make demo`, or
              export OS_CLIENT_CONFIG_FILE=\(layout.clouds) OS_CLOUD=wolke-demo
              \(program) server list        # or: openstack server list
            """
    }
}
