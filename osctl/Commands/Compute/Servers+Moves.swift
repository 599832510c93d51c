import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

/// Moving servers between hosts.
extension Servers {
    struct Migrate: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "migrate",
            abstract: "Move servers to another host: while they run (--live), or while they are off.",
            discussion: "`osctl server resize --confirm` or `--revert` ends a move while the server is off.")

        @Argument(help: ArgumentHelp("Names or ids.", valueName: "server")) var servers: [String]
        @Flag(help: "Move the servers while they run.") var live = false
        @Flag(help: "Force live migrations in progress to complete, even if the guest has to be paused.") var complete = false
        @Flag(help: "Abort live migrations in progress.") var abort = false
        @Option(help: ArgumentHelp("The host to move to; the scheduler's choice if not given.", valueName: "host")) var host: String?
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func validate() throws {
            guard [live, complete, abort].filter({ $0 }).count <= 1, host == nil || !(complete || abort) else {
                throw ValidationError("Specify one of --live, --complete and --abort; --host goes with a new migration.")
            }
        }

        func execute(_ api: CloudAPI) async throws {
            var accepted: [String] = []
            let failures = await Several.run(servers, api) { name in
                let id = try await api.id(Servers.kind, name)
                if complete || abort { return try await change(id, api) }
                try await api.act(Servers.kind, id: id, body)
                accepted.append(id)
            }
            if waiting.wait {
                for id in accepted { try await live ? LiveMove(api, limit: waiting.timeout).follow(id) : reach(id, api) }
            }
            if failures > 0 { throw ExitCode(1) }
        }

        private var body: JSONValue {
            let target = host.map { JSONValue.string($0) }
            if live { return ["os-migrateLive": ["host": target ?? .null, "block_migration": "auto"]] }
            return ["migrate": target.map { ["host": $0] } ?? .null]
        }

        private func reach(_ id: String, _ api: CloudAPI) async throws {
            guard let rule = Servers.kind.progress else { return }
            let server = try await Waiter(api, limit: waiting.timeout).reach(["VERIFY_RESIZE"], Servers.kind, id: id, rule: rule)
            print("Server \(Servers.kind.title(server)) is \(server[rule.field]?.stringValue ?? "").")
        }

        /// Forces the live migration in progress to complete, or aborts it.
        private func change(_ id: String, _ api: CloudAPI) async throws {
            guard let number = try await LiveMove(api, limit: 0).current(id)?["id"]?.intValue else {
                throw CommandFailure("Server \(id) has no live migration in progress.", hint: "See: osctl server events \(id)")
            }
            let path: RESTPath = "/servers/\(id)/migrations/\(number)"
            if abort {
                try await api.client.delete(.compute, path, microversion: Servers.microversion)
            } else {
                try await api.client.post(.compute, path + "/action", ["force_complete": nil], microversion: Servers.microversion)
            }
        }
    }

    enum Evacuate: ServerAction {
        struct Options: ServerActionOptions {
            @Option(help: ArgumentHelp("The host to start on; the scheduler's choice if not given.", valueName: "host")) var host: String?
        }
        static let verb = "evacuate"
        static let abstract = "Start servers of a host that is down on another one; local disks are recreated."
        static let goal: Set = ["ACTIVE", "SHUTOFF"]
        static func body(_ options: Options, _ api: CloudAPI) -> JSONValue {
            ["evacuate": .object(JSONObject(options.host.map { [("host", .string($0))] } ?? []))]
        }
    }
}

/// Follows a live migration until it ends.
private struct LiveMove {
    private let api: CloudAPI
    private let limit: Int
    private let line = ProgressLine()

    private static let pause = Duration.milliseconds(500)

    init(_ api: CloudAPI, limit: Int) {
        self.api = api
        self.limit = limit
    }

    /// The migration in progress; nil if there is none.
    func current(_ id: String) async throws -> JSONValue? {
        try await api.client.get(.compute, "/servers/\(id)/migrations", microversion: Servers.microversion)["migrations"]?
            .arrayValue?.last
    }

    /// - Throws: `CommandFailure` if the server does not move, or if the move takes too long.
    func follow(_ id: String) async throws {
        let time = api.client.ambient.time
        let begun = time.monotonicNanoseconds()
        defer { line.clear() }
        while true {
            let server = try await api.get(Servers.kind, id: id)
            let seconds = Double(time.monotonicNanoseconds() - begun) / 1e9
            guard server["status"] == "MIGRATING" else { return try await conclude(server, id) }
            line.show("server \(Servers.kind.title(server)): \(LiveMove.words(try await current(id), seconds: seconds))", seconds: seconds)
            guard seconds < Double(limit) else {
                throw CommandFailure(
                    "The server \(Servers.kind.title(server)) still migrates after \(limit) s.",
                    hint: "The migration continues without osctl; see: osctl server show \(id)")
            }
            try await time.sleep(for: LiveMove.pause)
        }
    }

    private func conclude(_ server: JSONValue, _ id: String) async throws {
        line.clear()
        let records = try await api.client.get(
            .compute, "/os-migrations", query: [("instance_uuid", id), ("limit", "1")], microversion: Servers.microversion)
        let record = records["migrations"]?.arrayValue?.first
        let title = Servers.kind.title(server)
        guard record?["status"] == "completed" else {
            throw CommandFailure(
                "The server \(title) has not moved: its migration is \(record?["status"]?.stringValue ?? "unknown").",
                hint: "See: osctl server events \(id)")
        }
        print("Server \(title) is \(server["status"]?.stringValue ?? "") on \(record?["dest_compute"]?.stringValue ?? "another host").")
    }

    /// A progress bar, and the remaining time at the current rate.
    static func words(_ migration: JSONValue?, seconds: Double) -> String {
        guard let migration else { return "migrating" }
        let progress = MoveProgress(migration)
        let (total, remaining, sent) = (progress.total, progress.remaining, progress.sent)
        guard total > 0 else { return migration["status"]?.stringValue ?? "migrating" }
        let width = 20
        let bar = String(repeating: "#", count: sent * width / total) + String(repeating: "-", count: width - sent * width / total)
        let rest = sent > 0 ? ", about \(Int(Double(remaining) * seconds / Double(sent)) + 1) s left" : ""
        return "[\(bar)] \(sent * 100 / total) %, \(sent >> 20) of \(total >> 20) MiB\(remaining > 0 ? rest : "")"
    }
}
