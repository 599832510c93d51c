import Authorization
import Database
import JSON
import Kernel
import Logging
import ServiceCatalog
import Telemetry
import WebAPI
import Workflow

/// The service's API, from its parts' declarations.
package enum ComputeAPI {
    /// - Throws: 400 for a policy rule that cannot be read.
    package static func make(
        _ compute: Compute, publicURL: String, policyOverrides: [String: String] = [:],
        authenticator: any Authenticating, metrics: Metrics
    ) throws -> API {
        try API(
            service: ServiceDescription(.compute, publicURL: publicURL),
            resources: [VersionRoutes.resource] + resources(compute), rules: Rule.extra,
            policyOverrides: policyOverrides, database: compute.database, authenticator: authenticator,
            ambient: compute.ambient, log: compute.log, metrics: metrics)
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
            ServerDetailRoutes(compute: compute).resource,
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
        "os_compute_api:servers:create:forced_host": admin,
        ServerOwner.zeroDiskAction: admin,
        "os_compute_api:servers:show:host_status": admin,
        "os_compute_api:os-extended-server-attributes": admin,
        "os_compute_api:servers:show:flavor-extra-specs": reader,
        "os_compute_api:os-flavor-access:all": admin,
        "os_compute_api:os-flavor-extra-specs:show_all": anybody,
        "os_compute_api:os-lock-server:unlock:unlock_override": admin,
        "os_compute_api:os-instance-actions:events:details": admin,
        "os_compute_api:os-instance-actions:events": admin,
        "os_compute_api:os-server-groups:index:all_projects": admin,
        "os_compute_api:os-used-limits:other_project": admin,
        "os_compute_api:os-keypairs:other_user": admin,
        // As Network's create_port:fixed_ips; who overrides one overrides both.
        ServerInterfaces.addressAction: "rule:admin_required or (role:member and project_id:%(network:project_id)s)",
    ]
}

/// `GET /`, `GET /v2/` and `GET /v2.1/`: what this endpoint speaks.
enum VersionRoutes {
    static let resource = Resource(
        "version",
        routes: [
            Route(.get, "/", action: nil, "Versions of the API") { context in
                .json(200, ["versions": [older(context, isDetailed: false), document(context, isDetailed: false)]])
            },
            Route(.get, "/v2", action: nil, "Version 2.0 of the API") { context in
                .json(200, ["version": older(context, isDetailed: true)])
            },
            Route(.get, "/v2.1", action: nil, "Version 2.1 of the API") { context in
                .json(200, ["version": document(context, isDetailed: true)])
            },
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

/// Rows whose objects carry links, and members that are left out where there is nothing to say.
struct LinkedRenderer: Sendable {
    let url: String
    /// `servers`, `flavors`
    let path: String
    /// Members that are left out instead of being null.
    var optional: Set<String> = []

    init(_ context: RequestContext, path: String, optional: Set<String> = []) {
        url = context.publicURL
        self.path = path
        self.optional = optional
    }

    func object(_ rows: Rows, row: Int, _ fields: [Field], into writer: inout JSONWriter) {
        writer.object { writer in
            for (column, field) in fields.enumerated() {
                let isNull = rows.utf8(row: row, column: column) == nil
                if isNull, optional.contains(field.name) { continue }
                writer.name(field.name)
                switch field.expression {
                case "'links'": links(Table.keyText(rows, row: row) ?? "", path, into: &writer)
                case LinkedRenderer.imageExpression:
                    isNull ? writer.value("") : reference(text(rows, row, column), "images", into: &writer)
                case LinkedRenderer.flavorExpression:
                    reference(text(rows, row, column), "flavors", into: &writer)
                default: Table.renderValue(rows, row: row, column: column, field, into: &writer)
                }
            }
        }
    }

    static let imageExpression = "t.image_id"
    static let flavorExpression = "t.flavor->>'flavorid'"

    private func text(_ rows: Rows, _ row: Int, _ column: Int) -> String {
        rows.utf8(row: row, column: column).map { String(decoding: $0, as: UTF8.self) } ?? ""
    }

    private func reference(_ id: String, _ path: String, into writer: inout JSONWriter) {
        writer.object { writer in
            writer.field("id", id)
            writer.arrayField("links") {
                $0.object { link in
                    link.field("rel", "bookmark")
                    link.field("href", "\(url)/\(path)/\(id)")
                }
            }
        }
    }

    func links(_ id: String, _ path: String, into writer: inout JSONWriter) {
        writer.array { list in
            list.object { link in
                link.field("rel", "self")
                link.field("href", "\(url)/v2.1/\(path)/\(id)")
            }
            list.object { link in
                link.field("rel", "bookmark")
                link.field("href", "\(url)/\(path)/\(id)")
            }
        }
    }

    /// A page as `{"servers": […], "servers_links": […]}`.
    func list(
        _ page: (rows: Rows, count: Int, more: Bool), _ fields: [Field], collection: String, context: RequestContext,
        bytesPerRow: Int
    ) -> Response {
        var writer = JSONWriter(capacity: 256 + page.count * bytesPerRow)
        writer.object {
            $0.arrayField(collection) { list in
                for row in 0..<page.count { object(page.rows, row: row, fields, into: &list) }
            }
            if page.more, page.count > 0, let last = Table.keyText(page.rows, row: page.count - 1) {
                $0.arrayField(collection + "_links") { list in
                    list.object {
                        $0.field("rel", "next")
                        $0.field("href", context.nextLink(marker: last))
                    }
                }
            }
        }
        return .json(bytes: writer.bytes)
    }
}

extension VersionRange {
    static func from(_ minor: Int) -> VersionRange { VersionRange(from: Microversion(2, minor)) }
    static func through(_ minor: Int) -> VersionRange { VersionRange(through: Microversion(2, minor)) }
    static func between(_ from: Int, _ through: Int) -> VersionRange {
        VersionRange(from: Microversion(2, from), through: Microversion(2, through))
    }
}
