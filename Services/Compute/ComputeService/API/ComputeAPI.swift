import Authorization
import Database
import JSON
import Kernel
import Logging
import ServiceCatalog
import ServiceKit
import Telemetry
import WebAPI
import Workflow

/// The service's API, from its parts' declarations.
package enum ComputeAPI {
    /// - Throws: 400 for a policy rule that cannot be read.
    static func make(_ compute: Compute, _ surroundings: ServiceSurroundings) throws -> API {
        try surroundings.api(
            .compute, resources: [VersionRoutes.resource] + resources(compute).map(StrictQueries.applied), rules: Rule.extra)
    }

    private static func resources(_ compute: Compute) -> [Resource] {
        [
            FlavorRoutes(compute: compute).resource, FlavorDetailRoutes(compute: compute).resource,
            KeypairRoutes(compute: compute).resource, ServerRoutes(compute: compute).resource,
            ServerActionRoutes(compute: compute).resource, ServerMetadataRoutes(compute: compute).resource,
            ServerTagRoutes(compute: compute).resource, InterfaceRoutes(compute: compute).resource,
            VolumeAttachmentRoutes(compute: compute).resource, InstanceActionRoutes(compute: compute).resource,
            ServerGroupRoutes(compute: compute).resource, AggregateRoutes(compute: compute).resource,
            HostRoutes(compute: compute).resource, HypervisorRoutes(compute: compute).resource,
            QuotaRoutes(compute: compute).resource, ExtensionRoutes().resource, SchedulingRoutes(compute: compute).resource,
            ServerDetailRoutes(compute: compute).resource, GuestActionRoutes(compute: compute).resource,
            NetworkActionRoutes(compute: compute).resource, ShareRoutes(compute: compute).resource,
            ExternalEventRoutes(compute: compute).resource, ServerRebuildRoutes(compute: compute).resource,
            ServerRescueRoutes(compute: compute).resource, ServerResizeRoutes(compute: compute).resource,
            MigrationRoutes(compute: compute).resource, ServerMigrateRoutes(compute: compute).resource,
            ServerLiveMigrateRoutes(compute: compute).resource, ServerEvacuateRoutes(compute: compute).resource,
            RemoteConsoleRoutes(compute: compute).resource,
            ServerImageRoutes(compute: compute).resource, ServerShelveRoutes(compute: compute).resource,
            ImageProxyRoutes(compute: compute).resource, AssistedSnapshotRoutes.resource,
        ]
    }
}

/// Default rules of policy actions, by who may.
enum Rule {
    static let reader = "rule:project_reader_or_admin"
    static let member = "rule:project_member_or_admin"
    static let admin = "rule:admin_required"
    static let anybody = "@"

    /// Actions that no route has by itself.
    static let extra: [String: String] = [
        "os_compute_api:servers:index:get_all_tenants": admin,
        "os_compute_api:servers:detail:get_all_tenants": admin,
        "os_compute_api:servers:allow_all_filters": admin,
        ServerRoutes.forcedHost: admin, ServerRoutes.requestedDestination: admin,
        ServerOwner.zeroDiskAction: admin, VolumeSwapStore.action: admin,
        ServerShelveRoutes.toHost: admin, ServerDetailRoutes.hostTopology: admin,
        "os_compute_api:servers:show:host_status": admin,
        "os_compute_api:os-extended-server-attributes": admin,
        "os_compute_api:servers:show:flavor-extra-specs": reader,
        "os_compute_api:os-flavor-access:all": admin,
        "os_compute_api:os-flavor-extra-specs:show_all": anybody,
        "os_compute_api:os-lock-server:unlock:unlock_override": admin,
        ServerMigrateRoutes.hostAction: admin, ServerLiveMigrateRoutes.hostAction: admin,
        "os_compute_api:os-instance-actions:events:details": admin,
        "os_compute_api:os-instance-actions:events": admin,
        "os_compute_api:os-server-groups:index:all_projects": admin,
        "os_compute_api:os-used-limits:other_project": admin,
        "os_compute_api:os-keypairs:other_user": admin,
        // Same rule as Network's create_port:fixed_ips; override both together.
        ServerInterfaces.addressAction: "rule:admin_required or (role:member and project_id:%(network:project_id)s)",
    ]
}

/// `GET /`, `GET /v2/` and `GET /v2.1/`: the versions that this endpoint supports.
enum VersionRoutes {
    static let resource = Resource(
        "version",
        routes: [
            Route(
                .get, "/", action: nil, answer: .form(.wrapped("versions", .many(shape))), "Versions of the API"
            ) { context in
                .json(200, ["versions": [older(context, isDetailed: false), document(context, isDetailed: false)]])
            },
            Route(.get, "/v2", action: nil, answer: .form(.wrapped("version", shape)), "Version 2.0 of the API") { context in
                .json(200, ["version": older(context, isDetailed: true)])
            },
            Route(.get, "/v2.1", action: nil, answer: .form(.wrapped("version", shape)), "Version 2.1 of the API") { context in
                .json(200, ["version": document(context, isDetailed: true)])
            },
        ])

    private static let shape = BodySchema.object([
        .required("id", .anyText), .required("status", .anyText), .required("version", .anyText), .required("min_version", .anyText),
        .required("updated", .anyText), .required("links", .links),
        .init("media-types", .many(.object([.required("base", .anyText), .required("type", .anyText)]))),
    ])

    /// Version 2.0: version 2.1 without microversions, under `/v2`.
    private static func older(_ context: RequestContext, isDetailed: Bool) -> JSONValue {
        var document: JSONObject = [
            "id": "v2.0", "status": "SUPPORTED", "version": "", "min_version": "", "updated": "2011-01-21T11:33:21Z",
            "links": [["rel": "self", "href": .string("\(context.publicURL)/v2/")]],
        ]
        if isDetailed {
            document["media-types"] = [["base": "application/json", "type": "application/vnd.openstack.compute+json;version=2"]]
        }
        return .object(document)
    }

    private static func document(_ context: RequestContext, isDetailed: Bool) -> JSONValue {
        var document: JSONObject = [
            "id": "v2.1", "status": "CURRENT", "version": .string(VersionNegotiation.compute.maximum.description),
            "min_version": .string(VersionNegotiation.compute.minimum.description), "updated": "2013-07-23T11:33:21Z",
            "links": [["rel": "self", "href": .string("\(context.publicURL)/v2.1/")]],
        ]
        if isDetailed {
            document["media-types"] = [
                ["base": "application/json", "type": "application/vnd.openstack.compute+json;version=2.1"]
            ]
        }
        return .object(document)
    }
}

extension Field {
    /// `self` and `bookmark` of a resource.
    static func links(_ path: String) -> Field {
        Field("links", .links([.absolute("self", "/v2.1/\(path)"), .absolute("bookmark", "/\(path)")]))
    }
}

extension ListGrammar {
    /// Nova's conventions: from 2.75 on, parameters that a list does not have are refused.
    ///
    /// - Parameters:
    ///   - ignoring: names that the service interprets itself, or that have no effect.
    ///   - hasFields: whether `fields` names the members to show.
    static func compute(ignoring: Set<String> = [], hasOffset: Bool = false, hasFields: Bool = true) -> ListGrammar {
        ListGrammar {
            $0.ignoring = hasFields ? ignoring : ignoring.union(["fields"])
            $0.hasOffset = hasOffset
            $0.hasFields = hasFields
            $0.allowsEmptyPage = true
            $0.limitMax = Int(Int32.max)
            $0.unknown = .decided { context, name in
                context.version(atLeast: 2, 75) ? .badRequest("Invalid query parameter '\(name.prefix(64))'.") : nil
            }
        }
    }
}

extension VersionRange {
    static func from(_ minor: Int) -> VersionRange { VersionRange(from: Microversion(2, minor)) }
    static func through(_ minor: Int) -> VersionRange { VersionRange(through: Microversion(2, minor)) }
    static func between(_ from: Int, _ through: Int) -> VersionRange {
        VersionRange(from: Microversion(2, from), through: Microversion(2, through))
    }
}
