import Kernel

/// Why a filter refuses a host: a text for the tenant without details of hosts, and one for the operator.
package struct Refusal: Sendable, Hashable {
    package let tenant: String
    package let `operator`: String

    init(_ tenant: String, operator words: String? = nil) {
        self.tenant = tenant
        self.operator = words ?? tenant
    }
}

/// The filters in the order in which they are applied, with the names of Nova's filters.
package enum HostFilter: String, Sendable, CaseIterable {
    case compute = "ComputeFilter"
    case zone = "AvailabilityZoneFilter"
    case isolation = "AggregateMultiTenancyIsolation"
    case aggregates = "AggregateInstanceExtraSpecsFilter"
    case traits = "TraitFilter"
    case image = "ImagePropertiesFilter"
    case groupAffinity = "ServerGroupAffinityFilter"
    case groupAntiAffinity = "ServerGroupAntiAffinityFilter"
    case sameHost = "SameHostFilter"
    case differentHost = "DifferentHostFilter"
    case excluded = "ExcludedHostFilter"
    case requestedHost = "RequestedHostFilter"
    case resources = "ResourceFilter"

    /// Filters whose result does not depend on where servers run.
    static let fixed: [HostFilter] = [.compute, .zone, .isolation, .aggregates, .traits, .image]

    func passes(_ fleet: Fleet, _ place: Int, _ prepared: PreparedRequest) -> Bool {
        self == .resources ? fleet.fits(place, prepared.needs) : refusal(fleet, place, prepared) == nil
    }

    /// Nil when the host passes.
    func refusal(_ fleet: Fleet, _ place: Int, _ prepared: PreparedRequest) -> Refusal? {
        let request = prepared.request
        switch self {
        case .compute: return fleet.hosts[place].outage.map { Refusal("not in service", operator: $0.words) }
        case .zone:
            guard let zone = request.zone, fleet.hosts[place].zone != zone else { return nil }
            return Refusal(
                "not in availability zone \(zone)",
                operator: "is in availability zone \(fleet.hosts[place].zone), not \(zone)")
        case .isolation: return isolation(fleet, place, request)
        case .aggregates: return aggregates(fleet, place, request)
        case .traits: return traits(fleet, place, request)
        case .image: return image(fleet, place, request)
        case .excluded:
            guard !request.excludedHosts.isEmpty, request.excludedHosts.contains(fleet.hosts[place].name) else { return nil }
            return Refusal("is excluded", operator: "is excluded by the request")
        case .requestedHost:
            guard let name = request.host, fleet.hosts[place].name != name else { return nil }
            return Refusal("not the requested host")
        case .resources: return fleet.fits(place, prepared.needs) ? nil : resources(fleet.hosts[place], request)
        case .groupAffinity, .groupAntiAffinity, .sameHost, .differentHost:
            return affinityRefusal(fleet.hosts[place].id, request, prepared.affinity)
        }
    }

    /// Filters that depend on the servers already running on the host.
    private func affinityRefusal(_ host: UUID128, _ request: SchedulingRequest, _ affinity: AffinityContext) -> Refusal? {
        switch self {
        case .groupAffinity:
            guard request.group?.policy == .affinity, !affinity.members.isEmpty, affinity.members[host] == nil else { return nil }
            return Refusal("not the host of the server group")
        case .groupAntiAffinity:
            guard let group = request.group, group.policy == .antiAffinity, let members = affinity.members[host],
                members >= group.maxPerHost
            else { return nil }
            return Refusal(
                "has a member of the server group",
                operator: "has \(members) of at most \(group.maxPerHost) members of the server group")
        case .sameHost:
            guard !request.sameHost.isEmpty, !affinity.same.contains(host) else { return nil }
            return Refusal("not the host of the given servers")
        default:
            guard affinity.different.contains(host) else { return nil }
            return Refusal("has one of the given servers")
        }
    }

    /// Whether the request has a requirement for this filter.
    func isAsked(_ request: SchedulingRequest) -> Bool {
        switch self {
        case .compute, .isolation, .resources: true
        case .zone: request.zone != nil
        case .aggregates: !request.aggregateMetadata.isEmpty || !request.aggregateSpecs.isEmpty
        case .traits: !request.requiredTraits.isEmpty || !request.forbiddenTraits.isEmpty
        case .image: request.architecture != nil || request.hypervisorType != nil
        case .groupAffinity: request.group?.policy == .affinity
        case .groupAntiAffinity: request.group?.policy == .antiAffinity
        case .sameHost: !request.sameHost.isEmpty
        case .differentHost: !request.differentHost.isEmpty
        case .excluded: !request.excludedHosts.isEmpty
        case .requestedHost: request.host != nil
        }
    }

    // MARK: single filters

    private func isolation(_ fleet: Fleet, _ place: Int, _ request: SchedulingRequest) -> Refusal? {
        guard fleet.isolates else { return nil }
        var tenants: Set<String>?
        for id in fleet.hosts[place].aggregates {
            guard let reserved = fleet.aggregates[id]?.tenants else { continue }
            tenants = (tenants ?? []).union(reserved)
        }
        guard let tenants, !tenants.contains(request.projectID) else { return nil }
        return Refusal("reserved for other projects", operator: "is in an aggregate with filter_tenant_id for other projects")
    }

    private func aggregates(_ fleet: Fleet, _ place: Int, _ request: SchedulingRequest) -> Refusal? {
        if request.aggregateMetadata.isEmpty, request.aggregateSpecs.isEmpty { return nil }
        func values(_ name: String) -> [String] {
            fleet.hosts[place].aggregates.compactMap { fleet.aggregates[$0]?.metadata[name] }.flatMap { value in
                value.split(separator: ",").map { String($0.drop { $0 == " " }) }
            }
        }
        for (name, wanted) in request.aggregateMetadata.sorted(by: { $0.key < $1.key })
        where !values(name).contains(wanted) {
            return Refusal("no aggregate with the needed property", operator: "no aggregate with \(name)=\(wanted)")
        }
        for (name, rule) in request.aggregateSpecs.sorted(by: { $0.key < $1.key })
        where !values(name).contains(where: { SpecRule.matches($0, rule) }) {
            return Refusal("no aggregate with the needed property", operator: "no aggregate with \(name) \(rule)")
        }
        return nil
    }

    private func traits(_ fleet: Fleet, _ place: Int, _ request: SchedulingRequest) -> Refusal? {
        if !request.requiredTraits.isEmpty {
            let missing = request.requiredTraits.subtracting(fleet.hosts[place].traits)
            if let first = missing.min() {
                return Refusal("lacks trait \(first)", operator: "lacks \(missing.sorted().joined(separator: ", "))")
            }
        }
        guard !request.forbiddenTraits.isEmpty else { return nil }
        let present = request.forbiddenTraits.intersection(fleet.hosts[place].traits)
        return present.min().map {
            Refusal("has forbidden trait \($0)", operator: "has \(present.sorted().joined(separator: ", "))")
        }
    }

    private func image(_ fleet: Fleet, _ place: Int, _ request: SchedulingRequest) -> Refusal? {
        if let wanted = request.architecture, let architecture = fleet.hosts[place].architecture, architecture != wanted,
            !(architecture == "x86_64" && wanted == "i686")
        {
            return Refusal("not of architecture \(wanted)", operator: "is \(architecture), the image needs \(wanted)")
        }
        if let wanted = request.hypervisorType, let type = fleet.hosts[place].hypervisorType, type != wanted {
            return Refusal("not of hypervisor type \(wanted)", operator: "is \(type), the image needs \(wanted)")
        }
        return nil
    }

    private func resources(_ host: HostState, _ request: SchedulingRequest) -> Refusal? {
        var classes: [String] = []
        var words: [String] = []
        for need in request.resources {
            guard let inventory = host.inventories[need.resourceClass] else {
                classes.append(need.resourceClass)
                words.append("has no \(need.resourceClass)")
                continue
            }
            let free = host.free(need.resourceClass)
            if !inventory.admits(need.amount) {
                classes.append(need.resourceClass)
                words.append(
                    """
                    \(need.amount) \(need.resourceClass) at once are not allowed (from \(inventory.minUnit) to \
                    \(inventory.maxUnit) in steps of \(inventory.stepSize))
                    """
                )
            } else if need.amount > free {
                classes.append(need.resourceClass)
                words.append("needs \(need.amount) \(need.resourceClass), \(free) of \(inventory.capacity) free")
            }
        }
        return Refusal("not enough \(classes.joined(separator: ", "))", operator: words.joined(separator: "; "))
    }
}

/// The operators of a flavor's aggregate extra specs: `value`, `<or> a <or> b`, `s== a`, `>= 4`, `<in> part`.
enum SpecRule {
    static func matches(_ value: String, _ rule: String) -> Bool {
        let words = rule.split(separator: " ").map(String.init)
        guard let first = words.first else { return value.isEmpty }
        if first == "<or>" {
            return words.enumerated().contains { $0 % 2 == 1 && $1 == value }
        }
        guard words.count >= 2 else { return value == rule }
        let operand = words[1]
        switch first {
        case "<in>", "<all-in>": return words.dropFirst().filter { $0 != first }.allSatisfy { value.contains($0) }
        case "s==": return value == operand
        case "s!=": return value != operand
        case "s<": return value < operand
        case "s<=": return value <= operand
        case "s>": return value > operand
        case "s>=": return value >= operand
        default: break
        }
        guard let left = Double(value), let right = Double(operand) else { return value == rule }
        switch first {
        case "=", ">=": return left >= right
        case "==": return left == right
        case "!=": return left != right
        case "<=": return left <= right
        default: return false
        }
    }
}
