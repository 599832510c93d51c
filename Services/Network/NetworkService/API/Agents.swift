import Authorization
import Database
import JSON
package import Kernel
import WebAPI

/// A hypervisor according to OVN's southbound database.
package struct FleetMember: Sendable, Hashable {
    /// Id of the chassis row.
    package let id: UUID128
    package let chassis: String
    package let host: String
    package let isGateway: Bool
    package let physicalNetworks: [String]
    /// When its ovn-controller last acknowledged the current configuration; nil if never.
    package let heardAt: Timestamp?

    package init(
        id: UUID128, chassis: String, host: String, isGateway: Bool, physicalNetworks: [String], heardAt: Timestamp?
    ) {
        self.id = id
        self.chassis = chassis
        self.host = host
        self.isGateway = isGateway
        self.physicalNetworks = physicalNetworks
        self.heardAt = heardAt
    }

    /// Time without an acknowledgement after which a controller counts as dead.
    package static let silenceMax = Duration.seconds(75)

    package func isAlive(at now: Timestamp) -> Bool {
        guard let heardAt else { return false }
        return heardAt + FleetMember.silenceMax >= now
    }
}

/// The known hypervisors.
package protocol FleetView: Sendable {
    /// All chassis; empty until the southbound database has been read.
    func members() async -> [FleetMember]
}

extension NetworkAPI {
    private static let agentShape = BodySchema.object(
        BodySchema.Property.required(["id", "host", "binary", "agent_type", "topic", "availability_zone", "description"], .anyText)
            + BodySchema.Property.required(["created_at", "started_at", "heartbeat_timestamp"], .nullable(.anyText)) + [
                .required("alive", .boolean), .required("admin_state_up", .boolean), .required("resources_synced", .nullable(.boolean)),
                .required(
                    "configurations",
                    .object([.required("chassis_name", .anyText), .required("bridge-mappings", .many(.anyText))])),
            ])

    private static let zoneShape = BodySchema.object(BodySchema.Property.required(["name", "resource", "state"], .anyText))

    var agents: Resource {
        Resource(
            "agent",
            routes: [
                Route(
                    .get, "/v2.0/agents", action: "get_agents", rule: "@",
                    answer: .form(.wrapped("agents", .many(NetworkAPI.agentShape))), "List agents", handler: listAgents),
                Route(
                    .get, "/v2.0/agents/{id}", action: "get_agent", rule: NetworkPolicy.admin,
                    answer: .form(.wrapped("agent", NetworkAPI.agentShape)), "Show an agent"
                ) { context in
                    try context.authorize(target: .none)
                    let id = context.parameter("id")
                    guard let member = await fleet.members().first(where: { $0.id.description == id }) else {
                        throw ResourceError.notFound("Agent \(id.prefix(64)) could not be found.", type: "AgentNotFound")
                    }
                    return .json(200, ["agent": agent(member)])
                },
            ])
    }

    private func listAgents(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let known: Set<String> = [
            "id", "agent_type", "binary", "host", "alive", "admin_state_up", "topic", "availability_zone", "description",
        ]
        let request = try context.listRequest(filters: known, ignoring: ["page_reverse"], strict: true)
        // As in all lists of Network, callers without permission get an empty list and not an error.
        let all = context.allows("get_agent") ? await fleet.members().map(agent) : []
        let fitting = all.filter { item in
            request.filters.allSatisfy { filter in
                guard let value = item[filter.name] else { return false }
                if let flag = value.boolValue { return BodySchema.boolean(filter.value) == flag }
                return value.stringValue == filter.value
            }
        }
        let page = try request.page(of: fitting, isReversed: context.isPageReversed())
        return .json(200, ["agents": .array(page.items)])
    }

    private func agent(_ member: FleetMember) -> JSONValue {
        let heard = member.heardAt.map { text($0) }
        return [
            "id": .string(member.id.description), "host": .string(member.host), "binary": "ovn-controller",
            "agent_type": member.isGateway ? "OVN Controller Gateway agent" : "OVN Controller agent",
            "alive": .bool(member.isAlive(at: ambient.now)), "admin_state_up": true, "topic": "n/a",
            "availability_zone": .string(options.availabilityZone), "description": "", "resources_synced": nil,
            "created_at": JSONValue(heard), "started_at": JSONValue(heard), "heartbeat_timestamp": JSONValue(heard),
            "configurations": [
                "chassis_name": .string(member.chassis), "bridge-mappings": JSONValue(member.physicalNetworks),
            ],
        ]
    }

    /// `2026-01-31 12:34:56`, the form of agents' times.
    private func text(_ time: Timestamp) -> String {
        time.iso8601.replacing("T", with: " ").replacing("Z", with: "")
    }

    // MARK: availability zones

    var availabilityZones: Resource {
        Resource(
            "availability_zone",
            routes: [
                Route(
                    .get, "/v2.0/availability_zones", action: "get_availability_zone", rule: "@",
                    answer: .form(.wrapped("availability_zones", .many(NetworkAPI.zoneShape))), "List availability zones"
                ) { context in
                    try context.authorize(target: .none)
                    let request = try context.listRequest(
                        filters: ["name", "resource", "state"], ignoring: ["page_reverse"], strict: true)
                    let zones = ["network", "router"].map { kind -> JSONValue in
                        ["name": .string(options.availabilityZone), "resource": .string(kind), "state": "available"]
                    }
                    let fitting = zones.filter { zone in
                        request.filters.allSatisfy { zone[$0.name]?.stringValue == $0.value }
                    }
                    // Zones have no ids, and two may have the same name.
                    if let marker = request.marker {
                        throw ResourceError.badRequest(
                            """
                            Invalid input for query parameter marker. Value: '\(marker.prefix(64))'. Availability \
                            zones have no ids that a marker could name.
                            """
                        )
                    }
                    let page = try request.page(of: fitting, key: "name", isReversed: context.isPageReversed())
                    return .json(200, ["availability_zones": .array(page.items)])
                }
            ])
    }
}
