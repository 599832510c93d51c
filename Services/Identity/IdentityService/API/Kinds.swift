import Database
import JSON
import Kernel
import WebAPI

/// The resources of Identity.
extension Identity {
    private static let tags = Field(
        "tags", .json, "(SELECT coalesce(json_agg(g.tag ORDER BY g.tag), '[]') FROM project_tags g WHERE g.project_id = t.id)")

    /// A domain is a project with `is_domain`.
    static let projects = ResourceKind.identity(
        "project",
        Table(
            "projects t",
            fields: [
                Field("id"), Field("name", sortable: true, isSettable: true), Field("domain_id"), Field("description", isSettable: true),
                Field("enabled", .boolean, isSettable: true), Field("parent_id"), Field("is_domain", .boolean), tags,
                Field("cloud_project", .boolean),
                Field("options", .json), Field("extra", .members),
                // The filter `tags` is declared separately, because it does not compare with the field.
                .filter("tags") { "\(mine($0)) = \(Set(list($0)).count)" }, .filter("tags-any") { "\(mine($0)) > 0" },
                .filter("not-tags") { "\(mine($0)) < \(Set(list($0)).count)" }, .filter("not-tags-any") { "\(mine($0)) = 0" },
            ]), texts: ["name", "domain_id", "parent_id"], flags: ["enabled", "is_domain", "cloud_project"])

    private static func list(_ text: String) -> [String] { text.split(separator: ",").map(String.init) }

    /// The number of the query's tags that a project has.
    private static func mine(_ text: String) -> SQL {
        "(SELECT count(*) FROM project_tags g WHERE g.project_id = t.id AND g.tag = ANY (\(list(text))::text[]))"
    }

    static let domains = ResourceKind.identity(
        "domain",
        Table(
            "projects t",
            fields: [
                Field("id"), Field("name", sortable: true), Field("description"), Field("enabled", .boolean), tags,
                Field("options", .json), Field("extra", .members),
            ]), texts: ["name"], flags: ["enabled"])

    static let users = ResourceKind.identity(
        "user",
        Table(
            "users t",
            fields: [
                Field("id"), Field("name", sortable: true, isSettable: true), Field("domain_id"),
                Field("enabled", .boolean, isSettable: true), Field("default_project_id", isSettable: true),
                Field(
                    "password_expires_at", .timestampMicroseconds,
                    filter: .custom { try TimeFilter.condition("password_expires_at", "t.password_expires_at", $0) }),
                Field("options", .json), Field("extra", .members),
                Field("description", presence: .whenSet, isSettable: true),
            ]), texts: ["name", "domain_id", "default_project_id"], flags: ["enabled"])

    static let groups = ResourceKind.identity(
        "group",
        Table(
            "groups t",
            fields: [
                Field("id"), Field("name", sortable: true, isSettable: true), Field("domain_id"), Field("description", isSettable: true),
                Field("extra", .members),
            ]), texts: ["name", "domain_id"])

    static let roles = ResourceKind.identity(
        "role",
        Table(
            "roles t",
            fields: [
                Field("id"), Field("name", sortable: true, isSettable: true), Field("domain_id"), Field("description", isSettable: true),
                Field("options", .json), Field("extra", .members),
            ]), texts: ["name", "domain_id"])

    // MARK: catalog

    static let regions = ResourceKind.identity(
        "region",
        Table(
            "catalog_regions t",
            fields: [
                Field("id"), Field("description", isSettable: true), Field("parent_region_id", isSettable: true), Field("extra", .members),
            ]), relation: "catalog_regions", texts: ["parent_region_id"])

    static let services = ResourceKind.identity(
        "service",
        Table(
            "catalog_services t",
            fields: [
                Field("id"), Field("name", sortable: true, isSettable: true), Field("type", sortable: true, isSettable: true),
                Field("description", isSettable: true), Field("enabled", .boolean, isSettable: true), Field("extra", .members),
            ]), relation: "catalog_services", texts: ["name", "type"], flags: ["enabled"])

    static let endpoints = ResourceKind.identity(
        "endpoint",
        Table(
            "catalog_endpoints t",
            fields: [
                Field("id"), Field("interface", isSettable: true), Field("region_id"), Field("region", .text, "t.region_id"),
                Field("service_id", isSettable: true), Field("url", isSettable: true), Field("enabled", .boolean, isSettable: true),
                Field("extra", .members),
            ]), relation: "catalog_endpoints", texts: ["interface", "service_id", "region_id", "region"], flags: ["enabled"])

    // MARK: of users

    static let credentials = ResourceKind.identity(
        "application_credential",
        Table(
            "application_credentials t",
            fields: [
                Field("id"), Field("name", sortable: true), Field("description"), Field("project_id"), Field("user_id"),
                Field("unrestricted", .boolean), Field("expires_at", .timestampMicroseconds),
                Field(
                    "roles", .json,
                    """
                    (SELECT coalesce(json_agg(json_build_object('id', r.id, 'name', r.name, 'domain_id', r.domain_id)
                        ORDER BY r.name), '[]') FROM application_credential_roles c JOIN roles r ON r.id = c.role_id
                        WHERE c.application_credential_id = t.id)
                    """),
                Field("access_rules", .json),
                Field("system", .json, "NULL::json"),
            ]), texts: ["name"]
    ) { "/v3/users/\(PercentEncoding.encode($0.parameter("user_id")))/application_credentials" }

    /// For the answer to the create request, the only one with the secret.
    static let newCredentials = credentials.adding([Field("secret", .text, "NULL")])

    static let accessRules = ResourceKind.identity(
        "access_rule",
        Table(
            "access_rules t",
            fields: [Field("id"), Field("service", sortable: true), Field("path", sortable: true), Field("method", sortable: true)]),
        texts: ["service", "path", "method"]
    ) { "/v3/users/\(PercentEncoding.encode($0.parameter("user_id")))/access_rules" }
}

extension ResourceKind {
    /// A resource kind of Identity, whose objects link to themselves. A field of the kind `members` holds members that clients stored in
    /// addition to the known attributes.
    ///
    /// - Parameters:
    ///   - texts: fields that lists filter by, exactly and as `name__contains`.
    ///   - flags: fields that lists filter by as true or false.
    ///   - link: the path of the objects without their ids; `/v3/PLURAL` by default.
    static func identity(
        _ name: String, plural: String? = nil, _ table: Table, relation: String? = nil, texts: [String], flags: [String] = [],
        link: (@Sendable (RequestContext) -> String)? = nil
    ) -> ResourceKind {
        let plural = plural ?? name + "s"
        let place = link ?? { _ in "/v3/\(plural)" }
        let own = Link("self", escapesID: true) { "\($0.publicURL)\(place($0))/" }
        let filters = table.fields.flatMap { field -> [Field] in
            let (name, column) = (field.name, field.expression)
            if flags.contains(name) { return [.filter(name) { try TextFilter.flag(name, column, $0) }] }
            guard texts.contains(name) else { return [] }
            return [.filter(name) { TextFilter.equals(column, $0) }]
                + TextFilter.Comparison.allCases.map { comparison in
                    .filter("\(name)__\(comparison.rawValue)") { comparison.condition(column, $0) }
                }
        }
        return ResourceKind(
            name, plural: plural, table: table.keyed(by: .text).adding([Field("links", .linkMap([own]))] + filters), relation: relation,
            visibility: .everything,
            grammar: ListGrammar {
                $0.hasFields = false
                $0.requiresAll = true
                $0.unknown = .decided { _, name in TextFilter.isComparison(name) ? TextFilter.unknown(name) : nil }
            }, pages: .object
        ) { Identity.missing(name.replacing("_", with: " "), $0) }
    }
}
