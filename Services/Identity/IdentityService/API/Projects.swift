import WebAPI

/// Projects and domains as tables; a domain is a project with `is_domain`.
extension Identity {
    static let projects = ResourceKind.identity(
        "project",
        Table(
            "projects t",
            fields: [
                Field("id"), Field("name", sortable: true), Field("domain_id"), Field("description"),
                Field("enabled", .boolean), Field("parent_id"), Field("is_domain", .boolean),
                Field(
                    "tags", .json,
                    "(SELECT coalesce(json_agg(g.tag ORDER BY g.tag), '[]') FROM project_tags g WHERE g.project_id = t.id)"),
                Field("options", .json), Field("extra", .members),
            ]))

    static let domains = ResourceKind.identity(
        "domain",
        Table(
            "projects t",
            fields: [
                Field("id"), Field("name", sortable: true), Field("description"), Field("enabled", .boolean),
                Field(
                    "tags", .json,
                    "(SELECT coalesce(json_agg(g.tag ORDER BY g.tag), '[]') FROM project_tags g WHERE g.project_id = t.id)"),
                Field("options", .json), Field("extra", .members),
            ]))
}
