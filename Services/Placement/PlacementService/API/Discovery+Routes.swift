import JSON
import Kernel
import ServiceCatalog
import WebAPI

extension Placement {
    var discoveryResource: Resource {
        Resource(
            "version",
            routes: [
                Route(.get, "/", action: nil, "The version of the API") { context in
                    .json(
                        200,
                        [
                            "versions": [
                                [
                                    "id": "v1.0", "status": "CURRENT",
                                    "min_version": .string(VersionNegotiation.placement.minimum.description),
                                    "max_version": .string(VersionNegotiation.placement.maximum.description),
                                    "links": [["rel": "self", "href": ""]],
                                ]
                            ]
                        ])
                }
            ])
    }
}
