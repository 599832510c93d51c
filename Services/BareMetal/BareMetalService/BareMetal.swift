import Authorization
package import BareMetalCore
package import Cryptography
import Database
import JSON
import Kernel
import ServiceKit
import WebAPI
import Workflow

/// The service's settings.
package struct BareMetalOptions: Sendable {
    /// The keys that encrypt the credentials of nodes; nil if `credential_keys_file` is not set.
    let credentialKeys: CredentialKeys?
    /// The directory with the certificate authorities of controllers. Nodes may name its files.
    let certificatesDirectory: String?
    /// The hardware types that nodes can have.
    let hardwareTypes: [HardwareType]
    /// The interval at which the power state of all nodes is polled.
    let powerSync: Duration
    /// What is expected of agents in ramdisks.
    let agents: AgentRules
    /// The URL of the image with the deploy ramdisk; nil if nodes name their own.
    let deployISO: String?

    package init(
        credentialKeys: CredentialKeys?, certificatesDirectory: String? = nil, hardwareTypes: [HardwareType] = HardwareType.all,
        powerSync: Duration = .seconds(60), agents: AgentRules, deployISO: String? = nil
    ) {
        self.credentialKeys = credentialKeys
        self.certificatesDirectory = certificatesDirectory
        self.hardwareTypes = hardwareTypes
        self.powerSync = powerSync
        self.agents = agents
        self.deployISO = deployISO
    }
}

/// The Bare Metal service, with the dependencies of its handlers and workflows.
struct BareMetal: Sendable {
    let surroundings: ServiceSurroundings
    let secrets: NodeSecrets
    let hardware: HardwareFleet
    let agents: AgentCalls
    let deployISO: String?

    init(_ surroundings: ServiceSurroundings, _ options: BareMetalOptions) {
        self.surroundings = surroundings
        secrets = NodeSecrets(keys: options.credentialKeys, ambient: surroundings.ambient)
        agents = AgentCalls(
            database: surroundings.database, secrets: secrets, rules: options.agents, ambient: surroundings.ambient)
        hardware = HardwareFleet(surroundings, secrets, options)
        deployISO = options.deployISO
    }

    var database: Database { surroundings.database }
    var ambient: Ambient { surroundings.ambient }
    var workflows: NodeWorkflows { NodeWorkflows(surroundings: surroundings, hardware: hardware, agents: agents, deployISO: deployISO) }

    var resources: [Resource] {
        [
            DiscoveryRoutes.resource, NodeRoutes(bareMetal: self).resource, NodeStateRoutes(bareMetal: self).resource,
            NodeBootRoutes(bareMetal: self).resource,
            NodeTraitRoutes(bareMetal: self).resource, PortRoutes(bareMetal: self).resource, ChassisRoutes(bareMetal: self).resource,
            DriverRoutes(bareMetal: self).resource, AllocationRoutes(bareMetal: self).resource,
            PortGroupRoutes(bareMetal: self).resource, AgentRoutes(calls: agents).resource,
        ]
    }
}

/// The default rules of policy actions. Owners and lessees are projects: members of the owner have an operator's rights on their nodes,
/// and managers of the lessee may use them.
enum NodePolicy {
    static let admin = "rule:admin_required"
    /// For lists, which contain only the nodes that the caller may see.
    static let reader = "rule:admin_required or role:reader"
    static let nodeReader = "rule:admin_required or (role:reader and (project_id:%(node.owner)s or project_id:%(node.lessee)s))"
    static let nodeMember = "rule:admin_required or (role:member and (project_id:%(node.owner)s or project_id:%(node.lessee)s))"
    static let nodeUser = """
        rule:admin_required or (role:member and project_id:%(node.owner)s) or (role:manager and project_id:%(node.lessee)s)
        """
    static let owner = "rule:admin_required or (role:member and project_id:%(node.owner)s)"
    static let ownersManager = "rule:admin_required or (role:manager and project_id:%(node.owner)s)"

    /// Actions that no route declares.
    static let extra: [String: String] = [
        ResourceKind.allNodes: "rule:admin_required", ResourceKind.allAllocations: admin, AllocationRoutes.forOthers: admin,
        "baremetal:node:update:driver": ownersManager, "baremetal:node:update:owner": admin,
        "baremetal:node:update:lessee": ownersManager, "baremetal:node:update:instance": nodeUser,
        "baremetal:node:update:protected": nodeUser, "baremetal:node:disable_cleaning": admin,
    ]
}

extension BareMetal {
    /// The node that a path names, after the decision about the route's action.
    ///
    /// - Throws: 404 if the caller may see no such node.
    func node(_ connection: Connection, _ context: RequestContext, isLocked: Bool = false) throws -> Authorized<Node> {
        let ident = context.parameter("node")
        let missing = ResourceKind.nodes.notFound(ident)
        guard let node = try NodeStore.node(connection, ident, isLocked: isLocked) else {
            throw try BareMetal.absence(context, listedBy: "baremetal:node:list", missing)
        }
        return try context.authorizeVisible(
            node, target: BareMetal.target(node), visibleBy: "baremetal:node:get", notFound: missing)
    }

    /// What a node lacks for the work of its agent, by interface.
    func ramdiskProblems(of node: Node) async throws -> [HardwareInterface: String] {
        var problems: [HardwareInterface: String] = [:]
        func check(_ interface: HardwareInterface, _ body: () throws -> Void) {
            do { try body() } catch let error as ResourceError { problems[interface] = error.message } catch {
                problems[interface] = "\(error)"
            }
        }
        check(.boot) { _ = try workflows.ramdisk(of: node) }
        guard node.usesAgent else { return problems }
        let (info, properties) = try await database.read {
            (try NodeStore.instanceInfo($0, of: node.id), try NodeStore.properties($0, of: node.id))
        }
        check(.deploy) {
            _ = try DeployImage(info)
            try RootDevice.require(info["root_device"])
            try RootDevice.require(properties["root_device"])
        }
        return problems
    }

    /// The error for a resource that does not exist.
    ///
    /// - Throws: 403 for a caller who may not list such resources, as for an existing one: the response must not reveal which exist.
    static func absence(_ context: RequestContext, listedBy action: String, _ missing: ResourceError) throws -> ResourceError {
        if !context.allows(action, target: .project(try context.caller.projectID)) { try context.authorize(target: .none) }
        return missing
    }

    static func target(_ node: Node) -> PolicyTarget {
        var target = PolicyTarget.none
        target.attributes = node.policyTarget
        return target
    }

    /// - Throws: 409 with Ironic's message while a workflow of the node is active. Clients then wait and retry.
    func requireIdle(_ connection: Connection, _ node: Node) throws {
        guard try Workflows.isActive(connection, subject: node.id.description) else { return }
        throw ResourceError.conflict(
            "Node \(node.id) is locked by host \(surroundings.machine), please retry after the current operation is completed.")
    }
}
