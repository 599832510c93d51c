package import ConsoleCore
import Kernel
import Messaging
import ServiceCatalog
package import ServiceKit
import WebAPI

/// The console service's configuration.
package struct ConsoleOptions: Sendable {
    package var bind: String
    package var port: Int
    /// `host:port` of this process for agents; nil for the address in the agents' settings.
    package var agentAddress: String?
    package var allowedOrigins: Set<String>
    package var pages: ConsolePages
    package var limits: ConsoleRules.Limits

    package init(
        bind: String, port: Int, agentAddress: String?, allowedOrigins: Set<String>, pages: ConsolePages,
        limits: ConsoleRules.Limits = .init()
    ) {
        self.bind = bind
        self.port = port
        self.agentAddress = agentAddress
        self.allowedOrigins = allowedOrigins
        self.pages = pages
        self.limits = limits
    }
}

/// The console service as a module. It has no API: browsers connect to its listener with a token that Compute has issued.
package enum ConsoleModule {
    /// - Throws: errors of the policy file.
    package static func make(_ options: ConsoleOptions, _ surroundings: ServiceSurroundings) throws -> ServiceModule {
        let bus = surroundings.bus
        return ServiceModule(
            .console, surroundings, api: try surroundings.api(.console, resources: []),
            listener: ConsoleListener(options, surroundings),
            ready: {
                guard bus.isConnected else { throw ResourceError.unavailable("RabbitMQ is not reachable") }
            })
    }
}
