import ConsoleCore
import Kernel
import ServiceCatalog
package import ServiceKit
package import Settings

/// The executable `wolke-console`.
package struct ConsoleApplication {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `console`.
    package static let settingsKeys: [SettingsKey] = [
        .string(
            "agent_address", default: nil,
            """
            `host:port` under which the hosts' agents reach this process, required where several run; by default agents use their \
            own settings.
            """
        ),
        .list(
            "allowed_origins", default: [],
            "Origins of web pages, such as `https://dashboard.example.org`, that may open consoles besides the service's own pages."),
        .string("novnc_directory", default: "/usr/share/wolke/novnc", "noVNC's files; the pages of displays are unavailable without."),
        .string(
            "xterm_directory", default: "/usr/share/wolke/xterm",
            "xterm.js's files; the pages of serial ports are unavailable without."),
        .integer("connections", default: 2048, in: 16...65_536, "Open connections, of browsers and of agents."),
        .integer("connections_per_source", default: 128, in: 4...65_536, "Open connections from one address."),
        .integer("sessions_per_server", default: 8, in: 1...100, "Sessions of one server's consoles at the same time."),
    ]

    /// Runs until the process is stopped.
    package func run() async throws {
        let settings = process.settings
        var limits = ConsoleRules.Limits()
        limits.connectionsMax = settings.integer("console.connections")
        limits.connectionsPerSourceMax = settings.integer("console.connections_per_source")
        limits.sessionsPerServerMax = settings.integer("console.sessions_per_server")
        let port = settings.integer("endpoints.console_port")
        let options = ConsoleOptions(
            bind: settings.string("endpoints.bind"), port: port,
            agentAddress: settings.optionalString("console.agent_address"),
            allowedOrigins: Set(settings.list("console.allowed_origins").map { $0.lowercased() }),
            pages: ConsolePages(
                novnc: settings.string("console.novnc_directory"), xterm: settings.string("console.xterm_directory")),
            limits: limits)
        try await process.run { try ConsoleModule.make(options, $0) }
    }
}
