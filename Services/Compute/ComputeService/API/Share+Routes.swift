import WebAPI

/// Shares of file systems on servers (2.97), which need a service for shared file systems.
struct ShareRoutes: Sendable {
    let compute: Compute

    var resource: Resource {
        let path = "/v2.1/servers/{server_id}/shares"
        let one = path + "/{share_id}"
        func route(_ method: Method, _ path: String, _ action: String, rule: String, body: RouteBody = .none) -> Route {
            .unavailable(
                method, path, action: "os_compute_api:os-server-shares:\(action)", rule: rule, versions: .from(97), body: body,
                "This cloud has no service for shared file systems."
            ) { _ = try await compute.authorizedServer($0) }
        }
        return Resource(
            "server-share",
            routes: [
                route(.get, path, "index", rule: Rule.reader), route(.get, one, "show", rule: Rule.reader),
                route(.post, path, "create", rule: Rule.member, body: .json(.wrapped("share", .any))),
                route(.delete, one, "delete", rule: Rule.member),
            ])
    }
}
