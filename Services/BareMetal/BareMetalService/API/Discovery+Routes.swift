import JSON
import Kernel
import ServiceCatalog
import WebAPI

/// `GET /` and `GET /v1`: the versions that this endpoint supports.
enum DiscoveryRoutes {
    static let resource = Resource(
        "version",
        routes: [
            Route(.get, "/", action: nil, "Versions of the API") { context in
                .json(
                    200,
                    [
                        "name": "OpenStack Ironic API",
                        "description": "The Bare Metal API of this cloud: management and provisioning of physical machines.",
                        "default_version": version(context), "versions": [version(context)],
                    ])
            },
            Route(.get, "/v1", action: nil, "Version 1 of the API") { context in
                var document: JSONObject = [
                    "id": "v1", "version": version(context), "links": [link(context, "self", "/v1/")],
                    "media_types": ["base": "application/json", "type": "application/vnd.openstack.ironic.v1+json"],
                ]
                for (name, since) in collections where context.version(atLeast: 1, since) {
                    document[name] = [link(context, "self", "/v1/\(name)/"), link(context, "bookmark", "/\(name)/")]
                }
                return .json(200, .object(document))
            },
        ])

    /// The collections, each with the version that introduced it.
    private static let collections = [
        ("nodes", 1), ("ports", 1), ("portgroups", 23), ("chassis", 1), ("drivers", 1), ("conductors", 49), ("allocations", 52),
    ]

    private static func version(_ context: RequestContext) -> JSONValue {
        let range = VersionNegotiation.bareMetal
        return [
            "id": "v1", "status": "CURRENT", "min_version": .string("\(range.minimum)"), "version": .string("\(range.maximum)"),
            "links": [link(context, "self", "/v1/")],
        ]
    }

    private static func link(_ context: RequestContext, _ rel: String, _ path: String) -> JSONValue {
        ["rel": .string(rel), "href": .string(context.publicURL + path)]
    }
}
