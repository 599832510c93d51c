/// Short forms for the schemas of responses, whose values have no limits.
extension BodySchema {
    package static let count = BodySchema.integer(min: 0, max: Int.max)
    /// -1 means no limit.
    package static let limit = BodySchema.integer(min: -1, max: Int.max)
    package static let anyText = BodySchema.string(min: 0, max: Int.max, format: nil)
    package static let textMap = BodySchema.object([], additional: .values(.anyText))
    package static func many(_ element: BodySchema) -> BodySchema { .array(element, min: 0, max: Int.max) }
    /// `[{"rel": "self", "href": "…"}]`
    package static let links = BodySchema.many(
        .object([.required("rel", .anyText), .required("href", .anyText)], additional: .allowed))
}

extension BodySchema.Property {
    /// A member that responses of these versions always have.
    package static func required(_ name: String, _ schema: BodySchema, versions: VersionRange = .all) -> BodySchema.Property {
        BodySchema.Property(name, schema, required: true, versions: versions)
    }

    /// Members of one form that responses always have.
    package static func required(_ names: [String], _ schema: BodySchema) -> [BodySchema.Property] {
        names.map { .required($0, schema) }
    }
}
