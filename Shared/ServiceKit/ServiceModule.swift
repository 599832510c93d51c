package import Authorization
import Client
package import Database
package import Kernel
package import Logging
package import Messaging
package import ServiceCatalog
package import ServiceLifecycle
package import Telemetry
package import WebAPI
package import Workflow

/// The dependencies of a service, so that the same service runs in its process, in a test and in the simulation.
package struct ServiceSurroundings: Sendable {
    package let database: Database
    package let ambient: Ambient
    package let log: Logger
    package let metrics: Metrics
    package let bus: any MessageBus
    package let authenticator: any Authenticating
    /// The base URL for clients, without a trailing slash.
    package let publicURL: String
    /// The base URL of Identity, for clients without a token; nil if the service runs without Identity.
    package let identityURL: String?
    /// Rules of the operator's policy file.
    package let policyOverrides: [String: String]
    /// The machine's name, for heartbeats.
    package let machine: String

    package init(
        database: Database, ambient: Ambient, log: Logger, metrics: Metrics, bus: any MessageBus, authenticator: any Authenticating,
        publicURL: String, identityURL: String? = nil, policyOverrides: [String: String] = [:],
        machine: String = ProcessHeartbeat.machineName()
    ) {
        self.database = database
        self.ambient = ambient
        self.log = log
        self.metrics = metrics
        self.bus = bus
        self.authenticator = authenticator
        self.publicURL = publicURL
        self.identityURL = identityURL
        self.policyOverrides = policyOverrides
        self.machine = machine
    }

    /// The API of a service with these dependencies.
    ///
    /// - Parameters:
    ///   - subjectActions: the actions that a service may call on behalf of a project.
    ///   - rules: policy rules that no route declares.
    /// - Throws: 400 for a policy rule that cannot be parsed.
    package func api(
        _ service: CloudService, subjectActions: Set<String> = [], resources: [Resource], rules: [String: String] = [:]
    ) throws -> API {
        try API(
            service: ServiceDescription(service, publicURL: publicURL, identityURL: identityURL, subjectActions: subjectActions),
            resources: resources,
            rules: rules, policyOverrides: policyOverrides, database: database, authenticator: authenticator, ambient: ambient,
            log: log, metrics: metrics)
    }
}

/// A whole service as one value: its API, its workflows, and its background work.
///
/// It contains everything for running the service: `ServiceProcess.run` runs it in a process, the simulation with its own clock,
/// broker and database; tests use single parts.
package struct ServiceModule: Sendable {
    /// A background loop that runs until its task is cancelled, as long as the process.
    package struct Loop: Sendable {
        package let name: String
        package let run: @Sendable () async throws -> Void

        package init(_ name: String, _ run: @escaping @Sendable () async throws -> Void) {
            self.name = name
            self.run = run
        }
    }

    package let service: CloudService
    package let surroundings: ServiceSurroundings
    package let api: API
    /// All kinds of workflows of the service.
    package private(set) var workflows: [WorkflowDefinition]
    /// The kind of workflow that each kind of intent starts.
    private let intents: [String: String]
    /// Loops that process messages of the broker.
    package let consumers: [Loop]
    /// Loops for periodic tasks, audits with their repairs, and watches over external systems.
    package let loops: [Loop]
    /// The inspections of the service's data, for the doctor.
    package let inspections: [Inspection]
    /// The default quotas of projects; nil if the service has no quotas.
    package let quota: Quota?
    /// Serves the service's port instead of the API; nil for the API.
    package let listener: (any Service)?
    /// Throws an error for the operator while the service cannot work; `/readyz` calls it after checking the database.
    package let ready: @Sendable () async throws -> Void

    package init(
        _ service: CloudService, _ surroundings: ServiceSurroundings, api: API, workflows: [WorkflowDefinition] = [],
        intents: [String: String] = [:], consumers: [Loop] = [], loops: [Loop] = [], inspections: [Inspection] = [],
        quota: Quota? = nil, listener: (any Service)? = nil, ready: @escaping @Sendable () async throws -> Void = {}
    ) {
        self.service = service
        self.surroundings = surroundings
        self.api = api
        self.workflows = workflows
        self.intents = intents
        self.consumers = consumers
        self.loops = loops
        self.inspections = inspections
        self.quota = quota
        self.listener = listener
        self.ready = ready
    }

    /// The same service with workflows changed by `change`.
    package func changingWorkflows(_ change: (WorkflowDefinition) -> WorkflowDefinition) -> ServiceModule {
        var module = self
        module.workflows = workflows.map(change)
        return module
    }

    /// A new engine for the service's workflows.
    ///
    /// - Parameter replacing: definitions that replace those of the same kind and version.
    package func engine(replacing: [WorkflowDefinition] = [], ambient: Ambient? = nil) -> WorkflowEngine {
        let definitions = workflows.map { own in replacing.first { $0.kind == own.kind && $0.version == own.version } ?? own }
        return WorkflowEngine(
            service: service.section, definitions: definitions,
            intents: intents.compactMapValues { kind in definitions.first { $0.kind == kind } }, database: surroundings.database,
            ambient: ambient ?? surroundings.ambient, log: surroundings.log, metrics: surroundings.metrics)
    }

    /// All loops besides the API and the engine.
    package var allLoops: [Loop] { consumers + loops }
}
