package import Authorization
package import Database
package import Kernel
import Logging
package import Messaging
package import ServiceCatalog
package import ServiceKit
import Telemetry

extension ServiceSurroundings {
    /// The dependencies for a test: a bus within the process, and a log without output.
    package static func test(
        _ database: Database, _ service: CloudService, ambient: Ambient = Ambient(), bus: any MessageBus = InMemoryBus(),
        authenticator: any Authenticating = StaticAuthenticator.standard, policy: [String: String] = [:],
        publicURL: String? = nil
    ) -> ServiceSurroundings {
        ServiceSurroundings(
            database: database, ambient: ambient, log: Telemetry.logger(service: "test", level: "critical"), metrics: Metrics(), bus: bus,
            authenticator: authenticator, publicURL: publicURL ?? "http://\(service.name).example:\(service.port)", policyOverrides: policy,
            machine: "test")
    }
}
