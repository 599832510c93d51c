import JSON
import WebAPI

/// Documents about the service that need no token.
extension Identity {
    var discoveryResource: Resource {
        Resource(
            "version",
            routes: [
                Route(
                    .get, "/", action: nil, status: 300, answer: .form(.wrapped("versions", .wrapped("values", .list(Forms.version)))),
                    "Versions of the API"
                ) { context in
                    .json(
                        300, headers: ["vary": "X-Auth-Token"],
                        ["versions": ["values": [Identity.version(context.publicURL)]]])
                },
                Route(.get, "/v3", action: nil, answer: .form(.wrapped("version", Forms.version)), "The version of the API") { context in
                    .json(200, headers: ["vary": "X-Auth-Token"], ["version": Identity.version(context.publicURL)])
                },
            ])
    }

    private static func version(_ url: String) -> JSONValue {
        [
            "id": "v3.14", "status": "stable", "updated": "2020-04-07T00:00:00Z",
            "links": [["rel": "self", "href": .string(url + "/v3/")]],
            "media-types": [
                ["base": "application/json", "type": "application/vnd.openstack.identity-v3+json"]
            ],
        ]
    }
}
