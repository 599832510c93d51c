import Authorization
import Database
import JSON
import Kernel
import NetworkCore
import WebAPI

extension NetworkAPI {
    private static let availabilityShape = BodySchema.object(
        BodySchema.Property.required(["network_id", "network_name", "tenant_id", "project_id"], .anyText) + [
            .required("total_ips", .count), .required("used_ips", .count),
            .required(
                "subnet_ip_availability",
                .many(
                    .object(
                        BodySchema.Property.required(["subnet_id", "subnet_name", "cidr"], .anyText)
                            + BodySchema.Property.required(["ip_version", "total_ips", "used_ips"], .count)))),
        ])

    /// The total and used addresses of networks.
    var ipAvailabilities: Resource {
        let base = "/v2.0/network-ip-availabilities"
        return Resource(
            "network_ip_availability",
            routes: [
                Route(
                    .get, base, action: "get_network_ip_availability", rule: NetworkPolicy.admin,
                    answer: .form(.wrapped("network_ip_availabilities", .many(NetworkAPI.availabilityShape))), "List IP availability",
                    handler: listAvailabilities),
                Route(
                    .get, base + "/{id}", action: "get_network_ip_availability", rule: NetworkPolicy.admin,
                    answer: .form(.wrapped("network_ip_availability", NetworkAPI.availabilityShape)), "Show IP availability of a network"
                ) { context in
                    try context.authorize(target: .none)
                    let id = try context.uuidParameter("id", of: "Network")
                    let found = try await availability(NetworkUsageQuery(ids: [id]))
                    guard let one = found.first else { throw ResourceKind.networks.notFound(id) }
                    return .json(200, ["network_ip_availability": one])
                },
            ])
    }

    private func listAvailabilities(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let request = try context.listRequest(
            filters: ["network_id", "network_name", "tenant_id", "project_id", "ip_version"], ignoring: ["page_reverse"],
            strict: true)
        var query = NetworkUsageQuery()
        var version: Int?
        for filter in request.filters {
            switch filter.name {
            case "network_id": query.ids.append(filter.value)
            case "network_name": query.names.append(filter.value)
            case "ip_version": version = Int(filter.value) ?? 0
            default: query.projects.append(filter.value)
            }
        }
        query.limit = min(request.limit ?? Limits.pageSizeMax, Limits.pageSizeMax)
        if let key = request.sort.first(where: { !["id", "network_id"].contains($0.name) }) {
            throw ListRequest.unknownSortKey(key.name, ["id", "network_id"])
        }
        query.isDescending = request.sort.first?.descending ?? false != (try context.isPageReversed())
        if let marker = request.marker {
            guard let id = UUID128(marker) else { throw ResourceError.badRequest("marker [\(marker.prefix(64))] not found") }
            query.marker = id
        }
        var all = try await availability(query, version: version)
        if try context.isPageReversed() { all.reverse() }
        return .json(200, ["network_ip_availabilities": .array(all)])
    }

    private func availability(_ query: NetworkUsageQuery, version: Int? = nil) async throws -> [JSONValue] {
        try await database.snapshot { try networkUsage($0, query) }.map { network in
            let own = network.subnets.filter { version == nil || $0.subnet.cidr.version.rawValue == version }
            func size(_ subnet: Subnet) -> Int {
                Int(exactly: AddressPlanner.size(subnet.allocationPools)) ?? Int.max
            }
            let details = own.map { item -> JSONValue in
                [
                    "subnet_id": .string(item.subnet.id.description), "subnet_name": .string(item.name),
                    "cidr": .string(item.subnet.cidr.description),
                    "ip_version": JSONValue(item.subnet.cidr.version.rawValue), "total_ips": JSONValue(size(item.subnet)),
                    "used_ips": JSONValue(item.used),
                ]
            }
            let total = own.reduce(0) { $0.addingReportingOverflow(size($1.subnet)).overflow ? Int.max : $0 + size($1.subnet) }
            return [
                "network_id": .string(network.id.description), "network_name": .string(network.name),
                "tenant_id": .string(network.project), "project_id": .string(network.project),
                "total_ips": JSONValue(total), "used_ips": JSONValue(own.reduce(0) { $0 + $1.used }),
                "subnet_ip_availability": .array(details),
            ]
        }
    }
}
