import Authorization
import JSON
import WebAPI

extension NetworkAPI {
    /// Providers of advanced services (`service-type`). The list is empty: there is no VPN service, and only one type of router.
    var serviceProviders: Resource {
        Resource(
            "service_provider",
            routes: [
                Route(
                    .get, "/v2.0/service-providers", action: "get_service_provider", rule: "@",
                    answer: .form(.wrapped("service_providers", .many(.anyText))), "List service providers"
                ) { context in
                    try context.authorize(target: .none)
                    _ = try context.listRequest(
                        filters: ["service_type", "name", "default"], ignoring: ["page_reverse"], strict: true
                    ).page(of: [])
                    return .json(200, ["service_providers": []])
                }
            ])
    }
}
