import Authorization
import JSON
import WebAPI

/// Unified limits: this cloud has none; each service keeps its own quotas. Lists are empty, nothing can be created.
extension Identity {
    var limitResource: Resource {
        func empty(_ path: String, _ name: String) -> Route {
            Route(
                .get, path, action: "identity:list_\(name)", rule: "@", answer: .form(Forms.list(name, .any)),
                "List \(name); there are none"
            ) { context in
                try context.authorize(target: .none)
                return .json(
                    200, [name: [], "links": context.wholeListLinks])
            }
        }
        return Resource(
            "limit",
            routes: [
                empty("/v3/limits", "limits"), empty("/v3/registered_limits", "registered_limits"),
                Route(
                    .get, "/v3/limits/model", action: "identity:get_limit_model", rule: "@", answer: .form(Forms.limitModel),
                    "The model of limits"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(
                        200,
                        [
                            "model": [
                                "name": "flat",
                                "description": "Limit enforcement and validation does not take project hierarchy into consideration.",
                            ]
                        ])
                },
            ])
    }
}

/// Resources of Keystone that this cloud does not have: their lists exist and are empty, and nothing can be created.
extension Identity {
    var absentResource: Resource {
        func empty(_ path: String, _ member: String, _ action: String, rule: String = "rule:cloud_reader") -> Route {
            Route(
                .get, path, action: "identity:\(action)", rule: rule, answer: .form(Forms.list(member, .any)),
                "List \(member); there are none"
            ) { context in
                if context.parameters["user_id"] == nil {
                    try context.authorize(target: .none)
                } else {
                    _ = try await decideUser(context)
                }
                return .json(
                    200, [member: [], "links": context.wholeListLinks])
            }
        }
        return Resource(
            "absent",
            routes: [
                empty("/v3/policies", "policies", "list_policies"),
                empty("/v3/OS-TRUST/trusts", "trusts", "list_trusts", rule: "@"),
                empty("/v3/OS-FEDERATION/identity_providers", "identity_providers", "list_identity_providers"),
                empty("/v3/OS-FEDERATION/mappings", "mappings", "list_mappings"),
                empty("/v3/OS-FEDERATION/service_providers", "service_providers", "list_service_providers"),
                empty("/v3/OS-EP-FILTER/endpoint_groups", "endpoint_groups", "list_endpoint_groups"),
                empty("/v3/OS-OAUTH1/consumers", "consumers", "list_consumers"),
                empty(
                    "/v3/users/{user_id}/credentials/OS-EC2", "credentials", "ec2_list_credentials",
                    rule: "rule:cloud_reader or rule:self"),
            ])
    }
}
