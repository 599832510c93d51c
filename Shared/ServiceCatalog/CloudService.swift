import Kernel

/// The description of an API service: everything that code outside of the service's folder needs to know.
///
/// Settings, ports, the catalog, the supervisor of the one-machine cloud, `osctl`, REST clients and the request pipeline
/// derive from it, and programs in other languages read it with `osctl cloud services -o json`. A new service is a value in
/// `CloudService+All.swift` and its folder under `Services/`.
package struct CloudService: Sendable, Hashable, CustomStringConvertible {
    /// A catalog entry. Old clients know some services under two types; each type has an entry.
    package struct CatalogEntry: Sendable, Hashable {
        package let type: String
        /// Path below the service's root in the catalog's URL; `$(project_id)s` stands for the token's project.
        package let path: String

        package init(type: String, path: String) {
            self.type = type
            self.path = path
        }
    }

    /// Dependencies of a service's process besides PostgreSQL and RabbitMQ.
    package enum Infrastructure: Sendable, Hashable {
        /// OVN's northbound and southbound databases.
        case ovn
    }

    /// The name in executables and supervisor parts, with hyphens: `block-storage`.
    package let name: String
    /// The name for display: `Block Storage`.
    package let title: String
    /// The OpenStack project whose API the service implements: `cinder`.
    package let project: String
    /// The catalog entries, in the order in which clients look for them.
    package let catalog: [CatalogEntry]
    /// Further types of the service in clients and in catalogs of other clouds.
    package let aliases: [String]
    /// The service's type in access rules of application credentials and in the scope of idempotency keys (keystonemiddleware's
    /// `service_type`).
    package let type: String
    /// The default port of the API.
    package let port: Int
    /// The path of the API version that clients speak, below the service's root; `{project}` stands for the token's project.
    package let versionPath: String
    /// A former first path segment and its replacement at the lowest microversion: `v2` for `v2.1`.
    package let olderPath: OlderPath?
    package let faults: FaultStyle
    /// The service's microversions; nil if it has none.
    package let microversions: VersionNegotiation?
    /// How quotas are read and changed through the API; nil if the service has none.
    package let quotas: QuotaInterface?
    /// Whether the service carries out requests as workflows.
    package let hasWorkflows: Bool
    package let infrastructure: Set<Infrastructure>
    /// The periodic tasks that `osctl doctor --repair` can trigger, and for whose answers it waits.
    package let repairTasks: [String]
    /// Whether a cloud can do without the service: the one-machine cloud starts it, and its catalog has it, only on request.
    package let isOptional: Bool

    package struct OlderPath: Sendable, Hashable {
        package let older: String
        package let newer: String
    }

    /// - Parameter type: nil for the type of the first catalog entry.
    package init(
        _ name: String, title: String, project: String, catalog: [CatalogEntry], aliases: [String] = [], type: String? = nil,
        port: Int, versionPath: String, olderPath: OlderPath? = nil, faults: FaultStyle, microversions: VersionNegotiation? = nil,
        quotas: QuotaInterface? = nil, hasWorkflows: Bool = false, infrastructure: Set<Infrastructure> = [], repairTasks: [String] = [],
        isOptional: Bool = false
    ) {
        self.name = name
        self.title = title
        self.project = project
        self.catalog = catalog
        self.aliases = aliases
        self.type = type ?? catalog[0].type
        self.port = port
        self.versionPath = versionPath
        self.olderPath = olderPath
        self.faults = faults
        self.microversions = microversions
        self.quotas = quotas
        self.hasWorkflows = hasWorkflows
        self.infrastructure = infrastructure
        self.repairTasks = repairTasks
        self.isOptional = isOptional
    }

    // MARK: derived

    /// `wolke-block-storage`.
    package var executable: String { "wolke-" + name }

    /// The settings section, and the prefix of the service's keys in `endpoints`: `block_storage`.
    package var section: String { name.replacing("-", with: "_") }

    /// The default port for operators.
    package var operatorPort: Int { port + CloudService.operatorPortDistance }

    /// The difference between an API's port and its operators' port.
    package static let operatorPortDistance = 10_000

    /// Catalog types of the service, the preferred one first.
    package var catalogTypes: [String] { catalog.map(\.type) + aliases }

    /// The path of the API version that clients speak, below the service's root.
    ///
    /// - Parameter project: the id of the token's project; nil truncates the path before it.
    package func versionPath(project: String?) -> String {
        guard let project else { return versionPath.replacing("/{project}", with: "") }
        return versionPath.replacing("{project}", with: project)
    }

    /// The service under any of its names; nil for an unknown one.
    package init?(name: String) {
        let name = name.replacing("_", with: "-")
        guard let service = CloudService.all.first(where: { $0.name == name || $0.catalogTypes.contains(name) }) else { return nil }
        self = service
    }

    package var description: String { name }

    // A name must identify one service.
    package static func == (left: CloudService, right: CloudService) -> Bool { left.name == right.name }
    package func hash(into hasher: inout Hasher) { hasher.combine(name) }
}

/// The agents of hosts: executables with an operators' port, but without an API and a catalog entry.
package struct HostAgent: Sendable {
    package let executable: String
    package let section: String
    /// The default port for operators.
    package let port: Int

    package static let compute = HostAgent(executable: "wolke-compute-agent", section: "agent", port: 8790)

    package static let all = [compute]
}
