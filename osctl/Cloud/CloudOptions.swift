import ArgumentParser
import Glibc
import JSON
import Kernel
import ServiceCatalog

/// Selects a cloud by its state directory and port offset.
struct CloudOptions: ParsableArguments {
    @Option(help: "The cloud's state directory (or STATE in the environment).")
    var state: String = Machine.environment["STATE"] ?? ".state"

    @Option(help: "Added to every port (or PORT_OFFSET in the environment); remembered by the state directory.")
    var portOffset: Int?

    @Option(help: "Hypervisor hosts: this machine and simulated ones in network namespaces; remembered by the state directory.")
    var hosts: Int?

    @Option(
        name: .customLong("with"),
        help:
            """
            Optional services, separated by commas: \(CloudService.optional.map(\.name).joined(separator: ", ")) \
            (or WITH in the environment); all for all of them, "" for none; remembered by the state directory.
            """
    )
    var extraServices: String?

    @Option(
        help:
            """
            Open vSwitch's datapath: system (the kernel's), netdev (userspace), or auto, the kernel's where it \
            works (or DATAPATH in the environment).
            """
    )
    var datapath: String?

    /// - Throws: `CloudError` for an unknown value.
    func datapathChoice() throws -> DatapathChoice {
        let word = datapath ?? Machine.environment["DATAPATH"] ?? DatapathChoice.auto.rawValue
        guard let choice = DatapathChoice(rawValue: word) else {
            throw CloudError("DATAPATH must be auto, system or netdev, not '\(word)'")
        }
        return choice
    }

    /// The layout of the cloud in `state`.
    ///
    /// - Throws: `CloudError` if it cannot be used.
    static func layout(state: String) throws -> CloudLayout {
        var options = CloudOptions()
        options.state = state
        options.portOffset = nil
        options.hosts = nil
        options.extraServices = nil
        options.datapath = nil
        return try options.layout()
    }

    /// The cloud's layout, from the options and the values stored in the state directory.
    ///
    /// - Throws: `CloudError` if they contradict each other or cannot be used.
    func layout() throws -> CloudLayout {
        let description = Machine.readText(path + "/cloud.json").flatMap(CloudOptions.parse)
        let remembered = description?["port_offset"]?.intValue
        let fromEnvironment = Machine.environment["PORT_OFFSET"].flatMap { Int($0) }
        let wanted = portOffset ?? fromEnvironment
        if let remembered, let wanted, wanted != remembered {
            throw CloudError(
                "the cloud in \(path) was created with PORT_OFFSET=\(remembered), not \(wanted): use that, or another STATE")
        }
        var layout = CloudLayout(
            state: path, portOffset: wanted ?? remembered ?? 0, hostCount: hosts ?? description?["hosts"]?.intValue ?? 1)
        let chosen = (extraServices ?? Machine.environment["WITH"]).map { $0.split(separator: ",").map { String($0.filter { $0 != " " }) } }
        let named = chosen == ["all"] ? CloudService.optional.map(\.name) : chosen
        layout.extraServices = named ?? description?["services"]?.arrayValue?.compactMap(\.stringValue) ?? []
        if let problem = layout.problem() { throw CloudError(problem) }
        if let mark = Machine.readText(layout.datapathMark), let datapath = Datapath(rawValue: mark) { layout.datapath = datapath }
        return layout
    }

    private static func parse(_ text: String) -> JSONValue? {
        do {
            return try JSONValue.parse(text)
        } catch {
            return nil
        }
    }

    private var path: String {
        var absolute = state
        if !absolute.hasPrefix("/") {
            let current = getcwd(nil, 0)
            defer { free(current) }
            absolute = (current.map { String(cString: $0) } ?? "") + "/" + absolute
        }
        while absolute.count > 1, absolute.hasSuffix("/") { absolute.removeLast() }
        return absolute
    }
}

/// The record of a cloud's supervisor, written by itself.
struct SupervisorRecord: Sendable {
    let process: ProcessIdentity

    static func running(_ layout: CloudLayout) -> SupervisorRecord? {
        guard let text = Machine.readText(layout.supervisorRecord), let process = ProcessIdentity(json: text), process.isRunning
        else { return nil }
        return SupervisorRecord(process: process)
    }

    static func write(_ layout: CloudLayout) throws {
        guard let own = ProcessIdentity.current(getpid()) else { throw CloudError("/proc cannot be read; is it mounted?") }
        try Machine.write(layout.supervisorRecord, own.document + "\n")
    }
}

extension ProcessIdentity {
    /// The stored form.
    var document: String {
        JSONValue.object(["pid": JSONValue(Int(pid)), "start_ticks": .string(String(startTicks))]).description
    }

    init?(json text: String) {
        do {
            self.init(json: try JSONValue.parse(text))
        } catch {
            return nil
        }
    }

    init?(json value: JSONValue) {
        guard let pid = value["pid"]?.intValue, let ticks = value["start_ticks"]?.stringValue.flatMap({ UInt64($0) }) else {
            return nil
        }
        self.init(pid: Int32(truncatingIfNeeded: pid), startTicks: ticks)
    }
}

/// The record of the parts, written by the supervisor.
struct RecordedPart: Sendable {
    let name: String
    let group: String
    let address: String
    let state: String
    let process: ProcessIdentity?
    let restarts: Int
    let outages: Outages
    let version: String
    let problem: String?
    let log: String
    let stopSignal: Int32

    /// When the supervisor started counting restarts.
    static func since(_ layout: CloudLayout) -> Timestamp? {
        do {
            return try Machine.readText(layout.partsRecord).flatMap { try JSONValue.parse($0)["since"]?.stringValue }
                .flatMap { Timestamp($0) }
        } catch {
            return nil
        }
    }

    /// Whether guests lose their network while the part is down.
    var carriesTraffic: Bool { name.hasPrefix("ovs") || name.hasPrefix("ovn") }

    /// Describes the restarts of the switch and OVN; empty if there were none.
    static func networkOutages(_ layout: CloudLayout) -> [String] {
        let since = since(layout)
        return all(layout).filter(\.carriesTraffic).compactMap { $0.outages.words($0.name, since: since) }
    }

    static func all(_ layout: CloudLayout) -> [RecordedPart] {
        guard let text = Machine.readText(layout.partsRecord) else { return [] }
        do {
            return (try JSONValue.parse(text)["parts"]?.arrayValue ?? []).map { part in
                RecordedPart(
                    name: part["name"]?.stringValue ?? "?", group: part["group"]?.stringValue ?? "",
                    address: part["address"]?.stringValue ?? "", state: part["state"]?.stringValue ?? "",
                    process: ProcessIdentity(json: part), restarts: part["restarts"]?.intValue ?? 0,
                    outages: Outages(json: part["outages"]),
                    version: part["version"]?.stringValue ?? "",
                    problem: part["problem"]?.stringValue, log: part["log"]?.stringValue ?? "",
                    stopSignal: Int32(part["stop_signal"]?.intValue ?? 15))
            }
        } catch {
            return []
        }
    }
}
