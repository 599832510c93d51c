import Kernel
import WebAPI

/// From 2.102 on, all routes refuse query parameters that they do not have. Lists do this themselves, from 2.75 on.
enum StrictQueries {
    /// Parameters of routes that are not lists.
    private static let allowed: [String: Set<String>] = [
        "GET /v2.1/os-keypairs/{keypair_name}": ["user_id"], "DELETE /v2.1/os-keypairs/{keypair_name}": ["user_id"],
        "GET /v2.1/limits": ["tenant_id", "reserved"],
        "GET /v2.1/os-quota-sets/{project_id}": ["user_id"], "GET /v2.1/os-quota-sets/{project_id}/detail": ["user_id"],
        "PUT /v2.1/os-quota-sets/{project_id}": ["user_id"], "DELETE /v2.1/os-quota-sets/{project_id}": ["user_id"],
        "GET /v2.1/os-hypervisors/{hypervisor_id}": ["with_servers"],
    ]

    /// Routes that parse their parameters like lists, but have answers of another form.
    private static let lists: Set<String> = [
        "/v2.1/os-simple-tenant-usage", "/v2.1/os-simple-tenant-usage/{project_id}", "/v2.1/os-migrations",
        "/v2.1/servers/{server_id}/migrations", "/v2.1/servers/{server_id}/os-interface", "/v2.1/servers/{server_id}/os-security-groups",
        "/v2.1/servers/{server_id}/os-instance-actions", "/v2.1/os-hypervisors", "/v2.1/os-hypervisors/detail", "/v2.1/os-services",
    ]

    static func applied(to resource: Resource) -> Resource {
        Resource(resource.name, routes: resource.routes.map(applied))
    }

    private static func applied(to route: Route) -> Route {
        if case .list = route.answer { return route }
        guard route.method != .get || !lists.contains(route.path) else { return route }
        let names = allowed["\(route.method.rawValue) \(route.path)"] ?? []
        return route.under(route.path) { context in
            guard context.version(atLeast: 2, 102), let unknown = context.query.items.first(where: { !names.contains($0.name) }) else {
                return
            }
            throw ResourceError.badRequest("Invalid query parameter '\(unknown.name.prefix(64))'.")
        }
    }
}
