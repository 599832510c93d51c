import JSON
import WebAPI

/// Unified limits: this cloud has none; each service keeps its own quotas. Lists are empty, nothing can be created.
extension Identity {
    var limitResource: Resource {
        func empty(_ path: String, _ name: String) -> Route {
            Route(.get, path, action: "identity:list_\(name)", rule: "@", "List \(name); there are none") { context in
                try context.authorize(target: .none)
                return .json(
                    200, [name: [], "links": ["self": .string(context.selfLink), "next": nil, "previous": nil]])
            }
        }
        return Resource(
            "limit",
            routes: [
                empty("/v3/limits", "limits"), empty("/v3/registered_limits", "registered_limits"),
                Route(.get, "/v3/limits/model", action: "identity:get_limit_model", rule: "@", "The model of limits") { context in
                    try context.authorize(target: .none)
                    return .json(
                        200, ["model": ["name": "flat", "description": "Limit enforcement and validation does not take project hierarchy into consideration."]])
                },
            ])
    }
}
