import JSON
package import Kernel

/// A scheduling request: the consumer and its requirements.
package struct SchedulingRequest: Sendable, Hashable {
    /// The policy of a server group.
    package enum GroupPolicy: String, Sendable {
        case affinity
        case antiAffinity = "anti-affinity"
        case softAffinity = "soft-affinity"
        case softAntiAffinity = "soft-anti-affinity"
    }

    /// The server group and its existing members.
    package struct Group: Sendable, Hashable {
        package var id: String
        package var policy: GroupPolicy
        /// Maximum number of members on one host under `anti-affinity`.
        package var maxPerHost: Int
        package var members: [UUID128]

        package init(id: String, policy: GroupPolicy, maxPerHost: Int = 1, members: [UUID128] = []) {
            self.id = id
            self.policy = policy
            self.maxPerHost = maxPerHost
            self.members = members
        }
    }

    package var operationID = UUID128(high: 0, low: 0)
    package var consumerID = UUID128(high: 0, low: 0)
    package var projectID = ""
    package var userID = ""
    /// Positive amounts, in the order of their class names.
    package var resources: [ResourceAmount] = []
    package var requiredTraits: Set<String> = []
    package var forbiddenTraits: Set<String> = []
    package var zone: String?
    /// The only acceptable host.
    package var host: String?
    /// Metadata that an aggregate of the host must have.
    package var aggregateMetadata: [String: String] = [:]
    /// The flavor's `aggregate_instance_extra_specs:` with their operators.
    package var aggregateSpecs: [String: String] = [:]
    package var architecture: String?
    package var hypervisorType: String?
    package var group: Group?
    /// Servers of which at least one (or none) must run on the host.
    package var sameHost: [UUID128] = []
    package var differentHost: [UUID128] = []
    package var excludedHosts: Set<String> = []
    package var dryRun = false

    package init() {}

    /// The part of a request that filters evaluate independently of other servers and free capacity.
    var shape: RequestShape {
        RequestShape(
            projectID: projectID, requiredTraits: requiredTraits, forbiddenTraits: forbiddenTraits, zone: zone,
            aggregateMetadata: aggregateMetadata, aggregateSpecs: aggregateSpecs, architecture: architecture,
            hypervisorType: hypervisorType)
    }

    /// The minimum free amounts of the classes in the index.
    var need: FreeCapacity {
        var need = FreeCapacity(score: 0, cpus: 0, memory: 0, disk: 0)
        for item in resources {
            switch item.resourceClass {
            case "VCPU": need.cpus = Int32(clamping: item.amount)
            case "MEMORY_MB": need.memory = Int32(clamping: item.amount)
            case "DISK_GB": need.disk = Int32(clamping: item.amount)
            default: break
            }
        }
        return need
    }
}

struct RequestShape: Sendable, Hashable {
    var projectID: String
    var requiredTraits: Set<String>
    var forbiddenTraits: Set<String>
    var zone: String?
    var aggregateMetadata: [String: String]
    var aggregateSpecs: [String: String]
    var architecture: String?
    var hypervisorType: String?
}

/// The hosts of servers to which the request refers, by provider id.
package struct AffinityContext: Sendable, Hashable {
    /// The number of members of the request's group on each host, without the request's own consumer.
    package var members: [UUID128: Int]
    /// Hosts of the servers in `sameHost` and `differentHost`.
    package var same: Set<UUID128>
    package var different: Set<UUID128>

    package init(members: [UUID128: Int] = [:], same: Set<UUID128> = [], different: Set<UUID128> = []) {
        self.members = members
        self.same = same
        self.different = different
    }

    package static let none = AffinityContext()
}
