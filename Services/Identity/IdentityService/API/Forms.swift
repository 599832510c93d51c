import WebAPI

/// The schemas of answers that do not show a resource of a table.
enum Forms {
    private static let id = BodySchema.string(min: 1, max: 255, format: nil)
    /// Links include the query of their list.
    private static let link = BodySchema.string(min: 1, max: 65_535, format: nil)
    private static let time = BodySchema.string(min: 1, max: 32, format: .dateTime)
    private static let own = BodySchema.Property("links", .wrapped("self", link), required: true)

    private static func required(_ schema: BodySchema, _ names: String...) -> [BodySchema.Property] {
        names.map { .init($0, schema, required: true) }
    }

    /// `{"tags": […], "links": {"self": "…", "next": null, "previous": null}}`
    static func list(_ name: String, _ item: BodySchema) -> BodySchema {
        let links = BodySchema.object(required(link, "self") + required(.nullable(link), "next", "previous"))
        return .object([.init(name, .array(item, min: 0, max: 10_000), required: true), .init("links", links, required: true)])
    }

    // MARK: credentials

    static let credential = BodySchema.object(
        required(id, "id", "type", "user_id") + required(.string(min: 1, max: 65_535, format: nil), "blob")
            + required(.nullable(id), "project_id") + [own])

    // MARK: roles

    static let role = BodySchema.object(required(id, "id", "name") + [own])

    /// - Parameter implied: the role that is implied, or all of them.
    static func inference(_ implied: BodySchema) -> BodySchema {
        .object([.init("role_inference", .object(required(role, "prior_role") + required(implied, "implies")), required: true), own])
    }

    static let inferences = BodySchema.object([
        .init("role_inferences", .list(.object(required(role, "prior_role") + required(.list(role), "implies"))), required: true), own,
    ])

    /// A resource, with its name and domain if `include_names` requests them.
    private static let named = BodySchema.object([
        .init("id", id, required: true), .init("name", .nullable(.text)),
        .init("domain", .nullable(.object([.init("id", id, required: true), .init("name", .nullable(.text))]))),
    ])

    static let assignment = BodySchema.object([
        .init(
            "scope",
            .object([
                .init("project", named), .init("domain", named), .init("system", .wrapped("all", .strictBoolean)),
                .init("OS-INHERIT:inherited_to", .enumeration(["projects"])),
            ]), required: true), .init("role", named, required: true), .init("user", named), .init("group", named),
        .init("links", .wrapped("assignment", link), required: true),
    ])

    // MARK: tokens

    private static let domain = BodySchema.object(required(id, "id") + required(.nullable(.text), "name"))
    private static let inDomain = BodySchema.object(required(domain, "domain") + required(id, "id") + required(.nullable(.text), "name"))

    private static let endpoint = BodySchema.object(
        required(id, "id", "interface") + required(.nullable(id), "region_id", "region")
            + required(.string(min: 1, max: 4096, format: nil), "url"))

    static let catalogService = BodySchema.object(
        required(id, "id", "type") + required(.text, "name") + required(.list(endpoint), "endpoints"))

    /// The content of a token depends on its scope.
    static let token = BodySchema.wrapped(
        "token",
        .object(
            required(.list(.text), "methods", "audit_ids") + required(time, "expires_at", "issued_at") + [
                .init(
                    "user",
                    .object(
                        required(domain, "domain") + required(id, "id") + required(.nullable(.text), "name")
                            + required(.nullable(time), "password_expires_at")), required: true),
                .init("project", inDomain), .init("is_domain", .strictBoolean), .init("domain", domain),
                .init("system", .wrapped("all", .strictBoolean)),
                .init("roles", .list(.object(required(id, "id") + required(.text, "name")))),
                .init("catalog", .list(catalogService)),
                .init(
                    "application_credential",
                    .object(
                        required(id, "id") + required(.text, "name") + required(.strictBoolean, "restricted") + [
                            .init("access_rules", .list(.object(required(id, "id", "service", "path", "method"))))
                        ])),
            ]))

    // MARK: the service

    static let version = BodySchema.object(
        required(.text, "id", "status") + required(time, "updated") + [
            .init("links", .list(.object(required(.text, "rel") + required(link, "href"))), required: true),
            .init("media-types", .list(.object(required(.text, "base", "type"))), required: true),
        ])

    static let limitModel = BodySchema.wrapped("model", .object(required(.text, "name", "description")))
}
