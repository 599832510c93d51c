package import JSON

// The requests in `MessageQueue.placementSchedule`, and the scheduler's answers.

/// Requests a host for one server. A repetition of the operation gets the same answer. Release 0.1.0 sends no member `type`.
package struct ScheduleServer: MessageQuestion, Hashable {
    package typealias Answer = SchedulingAnswer

    package static let type = "schedule"

    /// The server group and its members.
    package struct Group: Codable, Sendable, Hashable {
        package var id: String
        /// `affinity`, `anti-affinity`, `soft-affinity` or `soft-anti-affinity`.
        package var policy: String
        /// `max_server_per_host` as the group's owner specified it: a number or its text.
        package var rules: JSONObject
        package var members: [String]

        package init(id: String, policy: String, rules: JSONObject, members: [String]) {
            self.id = id
            self.policy = policy
            self.rules = rules
            self.members = members
        }
    }

    package var operationID: String
    package var consumerID: String
    package var projectID: String
    package var userID: String
    /// Nil for any.
    package var zone: String?
    /// The only acceptable host; nil for any.
    package var host: String?
    /// Amounts by resource class.
    package var resources: [String: Int]
    package var requiredTraits: [String]
    package var forbiddenTraits: [String]
    package var flavorExtraSpecs: TextMap
    package var imageProperties: TextMap
    /// Whether the guest hardware that extra specs and properties request was checked; see `ServerFlavor`. Nil, as from release 0.1.0,
    /// means no.
    package var isHardwareChecked: Bool?
    /// Metadata that an aggregate of the host must have.
    package var aggregateMetadata: TextMap
    package var group: Group?
    /// Servers of which at least one (or none) must run on the host.
    package var sameHost: [String]
    package var differentHost: [String]
    package var excludedHosts: [String]
    /// Whether nothing is claimed.
    package var dryRun: Bool

    private enum CodingKeys: String, CodingKey {
        case host, resources, group
        case operationID = "operation_id"
        case consumerID = "consumer_id"
        case projectID = "project_id"
        case userID = "user_id"
        case zone = "availability_zone"
        case requiredTraits = "required_traits"
        case forbiddenTraits = "forbidden_traits"
        case flavorExtraSpecs = "flavor_extra_specs"
        case imageProperties = "image_properties"
        case aggregateMetadata = "aggregate_metadata"
        case sameHost = "same_host"
        case differentHost = "different_host"
        case excludedHosts = "exclude_hosts"
        case dryRun = "dry_run"
        case isHardwareChecked = "hardware_checked"
    }

    package init(
        operationID: String, consumerID: String, projectID: String, userID: String, zone: String? = nil, host: String? = nil,
        resources: [String: Int], requiredTraits: [String] = [], forbiddenTraits: [String] = [], flavorExtraSpecs: TextMap = [:],
        imageProperties: TextMap = [:], aggregateMetadata: TextMap = [:], group: Group? = nil, sameHost: [String] = [],
        differentHost: [String] = [], excludedHosts: [String] = [], dryRun: Bool = false
    ) {
        self.operationID = operationID
        self.consumerID = consumerID
        self.projectID = projectID
        self.userID = userID
        self.zone = zone
        self.host = host
        self.resources = resources
        self.requiredTraits = requiredTraits
        self.forbiddenTraits = forbiddenTraits
        self.flavorExtraSpecs = flavorExtraSpecs
        self.imageProperties = imageProperties
        self.aggregateMetadata = aggregateMetadata
        self.group = group
        self.sameHost = sameHost
        self.differentHost = differentHost
        self.excludedHosts = excludedHosts
        self.dryRun = dryRun
    }

    /// Replaces the needs of the request's flavor by those of another one.
    package mutating func ask(for needs: ServerNeeds, of flavor: ServerFlavor) {
        resources = needs.resources
        requiredTraits = needs.requiredTraits.sorted()
        forbiddenTraits = needs.forbiddenTraits.sorted()
        flavorExtraSpecs = flavor.extraSpecs ?? [:]
        isHardwareChecked = flavor.isHardwareChecked
    }
}

/// Requests a decision for several servers without claiming anything. Its member `requests` distinguishes it from
/// `ScheduleServer`.
package struct ScheduleTrial: MessageQuestion, Hashable {
    package static let type = "schedule"

    /// The member that distinguishes the request.
    package static let mark = "requests"

    /// Always true: requests for several servers never claim.
    package var dryRun = true
    /// Whether each request takes the earlier decisions into account, and the servers leave their current hosts; if not, each is
    /// decided separately.
    package var together: Bool
    /// Hosts that no request may use.
    package var excludedHosts: [String]
    package var requests: [ScheduleServer]

    private enum CodingKeys: String, CodingKey {
        case together, requests
        case dryRun = "dry_run"
        case excludedHosts = "exclude_hosts"
    }

    package init(together: Bool, excludedHosts: [String], requests: [ScheduleServer]) {
        self.together = together
        self.excludedHosts = excludedHosts
        self.requests = requests
    }

    /// The answers in the order of the requests, and the capacity of the hosts in service before and after.
    package struct Answer: Codable, Sendable, Hashable {
        package struct Capacity: Codable, Sendable, Hashable {
            package struct Amount: Codable, Sendable, Hashable {
                package var capacity: Int
                package var free: Int

                package init(capacity: Int, free: Int) {
                    self.capacity = capacity
                    self.free = free
                }
            }

            package var hosts: Int
            /// By resource class.
            package var resources: [String: Amount]

            package init(hosts: Int, resources: [String: Amount]) {
                self.hosts = hosts
                self.resources = resources
            }
        }

        package struct Change: Codable, Sendable, Hashable {
            package var before: Capacity
            package var after: Capacity

            package init(before: Capacity, after: Capacity) {
                self.before = before
                self.after = after
            }
        }

        package var dryRun: Bool
        package var answers: [SchedulingAnswer]
        package var capacity: Change

        private enum CodingKeys: String, CodingKey {
            case answers, capacity
            case dryRun = "dry_run"
        }

        package init(answers: [SchedulingAnswer], capacity: Change) {
            dryRun = true
            self.answers = answers
            self.capacity = capacity
        }
    }
}

/// The scheduler's decision about one server. Placement stores it for repetitions, and Compute's API shows its members.
package struct SchedulingAnswer: Codable, Sendable, Hashable {
    package enum Result: String, Codable, Sendable { case scheduled, rejected }

    /// One filter: the number of hosts before and after it, and how many it refused for each reason, in terms for the tenant.
    package struct Filter: Codable, Sendable, Hashable {
        package var name: String
        package var hostsBefore: Int
        package var hostsAfter: Int
        package var reasons: [String: Int]

        private enum CodingKeys: String, CodingKey {
            case name, reasons
            case hostsBefore = "hosts_before"
            case hostsAfter = "hosts_after"
        }

        package init(name: String, hostsBefore: Int, hostsAfter: Int, reasons: [String: Int]) {
            self.name = name
            self.hostsBefore = hostsBefore
            self.hostsAfter = hostsAfter
            self.reasons = reasons
        }
    }

    /// The reason why one host was refused; for operators.
    package struct Refusal: Codable, Sendable, Hashable {
        package var host: String
        package var filter: String
        package var reason: String

        package init(host: String, filter: String, reason: String) {
            self.host = host
            self.filter = filter
            self.reason = reason
        }
    }

    /// Alternatives that would fit.
    package struct Nearest: Codable, Sendable, Hashable {
        /// A smaller flavor, and the number of servers that would fit. Added by Compute.
        package struct Flavor: Codable, Sendable, Hashable {
            package var id: String
            package var name: String
            package var fits: Int

            package init(id: String, name: String, fits: Int) {
                self.id = id
                self.name = name
                self.fits = fits
            }
        }

        /// Amounts that one host has available, at most the requested ones.
        package var resources: [String: Int]
        /// The number that would fit in zones that were not requested.
        package var zones: [String: Int]
        /// Filters that each alone exclude all remaining hosts.
        package var without: [String]
        package var flavors: [Flavor]?

        private enum CodingKeys: String, CodingKey {
            case resources, without, flavors
            case zones = "availability_zones"
        }

        package init(resources: [String: Int], zones: [String: Int], without: [String], flavors: [Flavor]? = nil) {
            self.resources = resources
            self.zones = zones
            self.without = without
            self.flavors = flavors
        }
    }

    package var result: Result
    /// Set if a host was found.
    package var host: String?
    package var providerID: String?
    /// Other hosts that also fit.
    package var alternatives: Int?
    /// For a dry run: the number of such servers that would fit.
    package var fits: Int?
    package var dryRun: Bool?
    /// The reason for a refusal, in terms for the tenant.
    package var message: String?
    /// Nil for one of several servers that did get a host.
    package var filters: [Filter]?
    package var nearest: Nearest?
    package var refusals: [Refusal]?

    private enum CodingKeys: String, CodingKey {
        case result, host, alternatives, fits, message, filters, nearest
        case providerID = "resource_provider_id"
        case dryRun = "dry_run"
        case refusals = "operator"
    }

    package init(
        _ result: Result, host: String? = nil, providerID: String? = nil, alternatives: Int? = nil, fits: Int? = nil, dryRun: Bool? = nil,
        message: String? = nil, filters: [Filter]? = nil, nearest: Nearest? = nil, refusals: [Refusal]? = nil
    ) {
        self.result = result
        self.host = host
        self.providerID = providerID
        self.alternatives = alternatives
        self.fits = fits
        self.dryRun = dryRun
        self.message = message
        self.filters = filters
        self.nearest = nearest
        self.refusals = refusals
    }
}
