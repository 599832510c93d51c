import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

extension Servers {
    /// `osctl server console NAME` shows the log; `console url` shows the URL of a console; `console connect` attaches the terminal.
    struct Console: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Show a server's console.", subcommands: [Log.self, URL.self, Connect.self], defaultSubcommand: Log.self)
    }

    struct Log: APICommand {
        static let configuration = CommandConfiguration(commandName: "log", abstract: "Show the log of the serial console.")
        @Argument(help: "The server.") var server: String
        @Option(help: ArgumentHelp("Only the last lines.", valueName: "count")) var lines: Int?
        @Flag(name: .shortAndLong, help: "Keep printing new output until interrupted.") var follow = false
        @OptionGroup(title: "Cloud") var access: AccessOptions

        private static let pause: Duration = .seconds(1)

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, server)
            var shown = try await text(api, id, lines)
            Machine.write(to: 1, shown)
            guard follow else {
                if !shown.hasSuffix("\n"), !shown.isEmpty { Machine.write(to: 1, "\n") }
                return
            }
            shown = try await text(api, id, nil)
            while true {
                try await api.client.ambient.time.sleep(for: Log.pause)
                let all = try await text(api, id, nil)
                // A restarted guest begins a new log.
                Machine.write(to: 1, all.hasPrefix(shown) ? String(all.dropFirst(shown.count)) : all)
                shown = all
            }
        }

        private func text(_ api: CloudAPI, _ id: String, _ lines: Int?) async throws -> String {
            let answer = try await api.act(kind, id: id, ["os-getConsoleOutput": lines.map { ["length": JSONValue($0)] } ?? [:]])
            return answer["output"]?.stringValue ?? ""
        }
    }

    struct URL: APICommand {
        static let configuration = CommandConfiguration(commandName: "url", abstract: "Show the URL of a server's console.")
        enum Form: String, ExpressibleByArgument, CaseIterable { case novnc, serial }

        @Argument(help: "The server.") var server: String
        @Option(help: "novnc or serial.") var form: Form = .novnc
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let (protocolName, type) =
                switch form {
                case .novnc: ("vnc", "novnc")
                case .serial: ("serial", "serial")
                }
            let answer = try await api.client.post(
                .compute, kind.path(id: try await api.id(kind, server)) + "/remote-consoles",
                ["remote_console": ["protocol": .string(protocolName), "type": .string(type)]], microversion: kind.microversion)
            print(answer["remote_console"]?["url"]?.stringValue ?? "")
        }
    }

    /// The actions on a server.
    struct Events: APICommand {
        static let configuration = CommandConfiguration(abstract: "List the actions on a server, newest first.")
        @Argument(help: "The server.") var server: String
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        static let columns = [
            OutputColumn("Start", "start_time"), OutputColumn("Action", "action"), OutputColumn("Message", "message"),
            OutputColumn("User", "user_id"), OutputColumn("Request", "request_id"),
        ]

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, server)
            let list = try await api.client.list(
                service: .compute, path: kind.path(id: id) + "/os-instance-actions", key: "instanceActions", microversion: kind.microversion
            )
            print(try output.list(list, columns: Events.columns), terminator: "")
        }
    }
}
