package import Authorization
package import Client
package import Database
import Foundation
import Inspections
package import Kernel
package import Logging
import Messaging
import Schema
package import ServiceCatalog
package import ServiceLifecycle
package import Settings
package import Telemetry
import UnixSignals
package import WebAPI

/// The common parts of every API service's process: settings, log, metrics, database, authenticator.
///
/// An executable is `await ServiceProcess.main(.image, keys: …) { try await ImageApplication($0).run() }`.
package struct ServiceProcess: Sendable {
    package let service: CloudService
    /// The executable's name: `wolke-image`.
    package var name: String { service.executable }
    package let settings: Settings
    package let ambient: Ambient
    package let log: Logger
    package let metrics: Metrics
    package let database: Database
    /// The command line besides `--config FILE`.
    package let arguments: [String]

    /// Keys in every API service's section.
    private static let sectionKeys: [SettingsKey] = [
        .string("policy_file", default: nil, "YAML file of policy rules (`action: rule`) that replace the defaults.")
    ]

    // MARK: start

    /// Runs an executable to its end: parses the command line, reads the settings, opens the database, calls `body`. A failure is
    /// written to standard error and ends the process with status 1.
    ///
    /// - Parameters:
    ///   - keys: all keys of the service's own section.
    ///   - borrowing: keys of other sections, in addition to the common ones.
    package static func main(
        _ service: CloudService, keys: [SettingsKey], borrowing: SettingsSchema? = nil,
        _ body: (ServiceProcess) async throws -> Void
    ) async {
        DescriptorLimit.raise()
        do {
            if CommandLine.arguments.dropFirst().first == "--version" {
                print("\(service.executable) \(WolkeVersion.current)")
                return
            }
            let process = try open(service, keys: keys, borrowing: borrowing)
            try await body(process)
            process.database.close()
        } catch is CancellationError {
            return
        } catch {
            let text = (error as? ResourceError).map { $0.context ?? $0.message } ?? "\(error)"
            FileHandle.standardError.write(Data("\(service.executable): \(text)\n".utf8))
            exit(1)
        }
    }

    private static func open(
        _ service: CloudService, keys: [SettingsKey], borrowing: SettingsSchema?
    ) throws -> ServiceProcess {
        var arguments = Array(CommandLine.arguments.dropFirst())
        var path: String?
        if let index = arguments.firstIndex(of: "--config") {
            guard index + 1 < arguments.count else { throw ResourceError.badRequest("--config needs a file name") }
            path = arguments[index + 1]
            arguments.removeSubrange(index...(index + 1))
        }
        var schema = SettingsSchema.common + .section(service.section, keys + sectionKeys)
        if let borrowing { schema = schema + borrowing }
        let settings = try Settings.load(
            path: path, environment: ProcessInfo.processInfo.environment, schema: schema)
        let ambient = Ambient()
        let metrics = Metrics()
        let database = Database(databaseConfiguration(service.executable, settings), metrics: metrics)
        return ServiceProcess(
            service: service, settings: settings, ambient: ambient,
            log: Telemetry.logger(service: service.executable, level: settings.string("log.level")), metrics: metrics,
            database: database, arguments: arguments)
    }

    private static func databaseConfiguration(_ name: String, _ settings: Settings) -> DatabaseConfiguration {
        var configuration = DatabaseConfiguration(
            connectionString: settings.requiredSecret("database.url").exposed,
            connectionsMax: settings.integer("database.connections"),
            reserved: settings.integer("database.reserved_connections"),
            projectMax: settings.integer("database.project_connections"),
            waitingMax: settings.integer("database.waiting"),
            projectWaitingMax: settings.integer("database.project_waiting"))
        configuration.applicationName = name
        let lock = settings.duration("database.lock_timeout")
        let planeLock = settings.duration("database.plane_lock_timeout")
        configuration.requestRead = .init(statement: settings.duration("database.read_timeout"), lock: lock, together: true)
        configuration.requestWrite = .init(statement: settings.duration("database.write_timeout"), lock: lock, together: true)
        configuration.plane = .init(statement: settings.duration("database.plane_timeout"), lock: planeLock)
        configuration.periodicTask = .init(statement: settings.duration("database.audit_timeout"), lock: planeLock)
        configuration.idleInTransaction = settings.duration("database.idle_transaction_timeout")
        return configuration
    }

    // MARK: parts

    /// The process's authenticator, which must be passed to `run` as one of its services.
    ///
    /// - Throws: an error if `tokens.public_keys_file` is missing or malformed.
    package func makeAuthenticator() throws -> TokenAuthenticator {
        guard let path = settings.optionalString("tokens.public_keys_file") else {
            throw ResourceError.badRequest("the setting tokens.public_keys_file is missing")
        }
        return TokenAuthenticator(
            verifier: try TokenVerifier(file: try SettingsFile.text(path)), database: database, ambient: ambient)
    }

    /// The rules of the operator's policy file; empty without one.
    ///
    /// - Throws: `SettingsError` naming the file and the error in it.
    package func policyOverrides() throws -> [String: String] {
        guard let path = settings.optionalString("\(service.section).policy_file") else { return [:] }
        return try SettingsFile.texts(path)
    }

    /// The service's public base URL.
    package var publicURL: String { settings.endpoint(service) }

    /// The dependencies of the service in this process.
    private func surroundings(_ authenticator: TokenAuthenticator, _ bus: any MessageBus) throws -> ServiceSurroundings {
        ServiceSurroundings(
            database: database, ambient: ambient, log: log, metrics: metrics, bus: bus, authenticator: authenticator,
            publicURL: publicURL, identityURL: settings.endpoint(.identity), policyOverrides: try policyOverrides())
    }

    /// A client of the other services that acts as the service user.
    package func makeClient() -> RESTClient {
        RESTClient(
            .serviceUser(
                endpoints: settings.endpoints, user: settings.string("service_user.name"),
                password: settings.requiredSecret("service_user.password"), domain: settings.string("service_user.domain"),
                project: settings.string("service_user.project")),
            ambient: ambient, requestID: { RequestScope.current })
    }

    /// Runs the service until SIGTERM or SIGINT: its API, its workflows, its loops.
    ///
    /// - Parameter authenticator: nil to create one with this process's keys.
    /// - Throws: errors of building the module; an error if this build cannot work on the database's schema, or if a part fails.
    package func run(
        authenticator: TokenAuthenticator? = nil, _ make: (ServiceSurroundings) throws -> ServiceModule
    ) async throws {
        guard arguments.isEmpty else { throw ResourceError.badRequest("unknown argument \"\(arguments[0])\"") }
        let authenticator = try authenticator ?? makeAuthenticator()
        let bus = RabbitBus(
            BusConfiguration(addresses: try BrokerAddress.list(settings.requiredSecret("messaging.url").exposed), name: name),
            ambient: ambient, logger: log, metrics: metrics)
        defer { bus.close() }
        let module = try make(try surroundings(authenticator, bus))
        let engine: [any Service] = module.workflows.isEmpty ? [] : [module.engine()]
        try await run(
            module.api, listener: module.listener,
            services: [authenticator] + engine + module.allLoops.map { BackgroundLoop($0.run) }, ready: module.ready)
    }

    /// Registers the process, serves `api` and runs `services` until SIGTERM or SIGINT, then completes the requests in progress.
    ///
    /// - Parameters:
    ///   - listener: serves the service's port instead of the API.
    ///   - services: the authenticator, workers, consumers; stopped after the HTTP server.
    ///   - ready: called by `/readyz` after checking the database; throws an error for the operator.
    /// - Throws: an error if this build cannot work on the database's schema, or if a part fails.
    private func run(
        _ api: API, listener: (any Service)?, services: [any Service], ready: @escaping @Sendable () async throws -> Void
    ) async throws {
        let database = database
        let replica = Replicas.Replica(
            id: ambient.newUUID(), service: name, host: ProcessHeartbeat.machineName(),
            process: Int(ProcessInfo.processInfo.processIdentifier))
        try await Replicas.join(database, replica, ambient)
        let readiness = Readiness(time: ambient.time) {
            _ = try await database.read { try $0.query("SELECT 1 AS one")[0].int("one") }
            try await ready()
        }
        var served = api
        served.bodies = BodyBudget(bytesMax: settings.integer("web.body_memory") << 20)
        let server =
            try listener
            ?? HTTPServer(
                api: served, host: settings.string("endpoints.bind"), port: settings.integer("endpoints.\(service.section)_port"),
                metrics: metrics, log: log, limits: try settings.connectionLimits(), readiness: readiness)
        var servers: [any Service] = [server]
        let operatorPort = settings.integer("endpoints.\(service.section)_operator_port")
        if operatorPort > 0 {
            servers.insert(
                OperatorServer(
                    api: served, host: settings.string("endpoints.operator_bind"), port: operatorPort, metrics: metrics, log: log,
                    readiness: readiness),
                at: 0)
        }
        log.notice("starting", metadata: ["url": "\(publicURL)"])
        let forgetting = BackgroundLoop {
            try await PeriodicTask.repeating(
                every: .seconds(900), ambient, log, failure: "expired responses could not be deleted"
            ) {
                try await KeptAnswers.forget(database, service: api.service.type, ambient)
            }
        }
        do { try await run(services + [forgetting, registration(replica)] + servers) } catch {
            await leave(replica)
            throw error
        }
        await leave(replica)
    }

    /// Keeps the process registered, and ends it if the schema was contracted beyond its own.
    private func registration(_ replica: Replicas.Replica) -> BackgroundLoop {
        let (database, ambient, log) = (database, ambient, log)
        return BackgroundLoop {
            while true {
                try await ambient.time.sleep(for: Replicas.interval)
                do { try await Replicas.renew(database, replica, ambient) } catch let error as ResourceError where error.code == .conflict {
                    log.critical(
                        "this release can no longer work on the database", metadata: ["error": "\(error.context ?? error.message)"])
                    throw error
                } catch let error where !(error is CancellationError) {
                    log.warning("the registration was not renewed", metadata: ["error": "\(error)"])
                }
            }
        }
    }

    private func leave(_ replica: Replicas.Replica) async {
        do { try await Replicas.leave(database, replica) } catch {
            log.warning("the registration could not be removed; it will expire", metadata: ["error": "\(error)"])
        }
    }

    /// Runs `services` until SIGTERM or SIGINT; the last one is stopped first.
    package func run(_ services: [any Service]) async throws {
        var quiet = log
        quiet.logLevel = max(.warning, log.logLevel)
        let group = ServiceGroup(
            configuration: ServiceGroupConfiguration(
                services: services.map { .init(service: $0, serviceName: "\(type(of: $0))") },
                gracefulShutdownSignals: [.sigterm, .sigint], logger: quiet))
        try await group.run()
        log.notice("stopped")
    }
}

extension Settings {
    /// The limits of an API's connections from the section `web`, within the process's limit of open files.
    ///
    /// - Throws: `SettingsError` for a trusted proxy that is not an address or network, and if the process may not open enough
    ///   files.
    package func connectionLimits() throws -> ConnectionLimits {
        var limits = ConnectionLimits()
        let descriptors = DescriptorLimit.raise()
        // The operators' listener has its own connections besides these.
        let available = descriptors - DescriptorLimit.reserve(of: descriptors) - limits.refusalsMax - 128
        guard available >= 16 else {
            throw SettingsError([
                "this process may open \(descriptors) files; it needs at least 640 (ulimit -n, or LimitNOFILE of its unit)"
            ])
        }
        limits.connectionsMax = min(integer("web.connections"), available)
        limits.connectionsPerSourceMax = min(integer("web.connections_per_source"), limits.connectionsMax)
        limits.headTimeout = duration("web.head_timeout")
        limits.idleTimeout = duration("web.idle_timeout")
        limits.bodyRateMin = integer("web.body_rate")
        limits.writeTimeout = duration("web.write_timeout")
        limits.trustedProxies = try list("web.trusted_proxies").map { text in
            if let network = IPNetwork(text) { return network }
            guard let address = IPAddress(text) else {
                throw SettingsError(["web.trusted_proxies: \"\(text)\" is not an address or a network such as 192.0.2.0/24"])
            }
            return IPNetwork(address, prefixLength: address.version.width)
        }
        return limits
    }
}

/// Runs a loop as a service, which is cancelled when the process shuts down.
package struct BackgroundLoop: Service {
    private let body: @Sendable () async throws -> Void

    package init(_ body: @escaping @Sendable () async throws -> Void) { self.body = body }

    /// Runs the loop until it ends or the process shuts down.
    package func run() async throws {
        try await cancelWhenGracefulShutdown { try await body() }
    }
}
