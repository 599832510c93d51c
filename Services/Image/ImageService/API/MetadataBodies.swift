import ImageCore
import JSON
import Kernel
import WebAPI

/// The bodies of requests for metadata definitions.
enum MetadataBodies {
    private static let name = BodySchema.string(min: 1, max: MetadataLimits.nameLengthMax, format: .name)
    private static let shortText = BodySchema.text(MetadataLimits.nameLengthMax)
    private static let longText = BodySchema.text(MetadataLimits.textLengthMax)
    private static let count = BodySchema.integer(min: 0, max: Int(Int32.max))
    private static let type = BodySchema.enumeration(["array", "boolean", "integer", "number", "object", "string"])
    private static let scalar = BodySchema.oneOf([.number, .strictBoolean, longText])
    /// Members of responses: as in Glance, a request may not have them.
    private static let readOnly = ["created_at", "updated_at", "self", "schema"]

    private static let members: [BodySchema.Property] = [
        .init("type", type, required: true), .init("title", longText, required: true), .init("description", longText),
        .init("operators", .list(longText)), .init("default", .oneOf([scalar, .list(scalar)])), .init("readonly", .strictBoolean),
        .init("minimum", .number), .init("maximum", .number), .init("enum", .list(scalar)), .init("pattern", longText),
        .init("minLength", count), .init("maxLength", count),
        .init("items", .object([.init("type", type, required: true), .init("enum", .list(scalar))])), .init("uniqueItems", .strictBoolean),
        .init("minItems", count), .init("maxItems", count), .init("additionalItems", .strictBoolean),
    ]

    private static let definitions = BodySchema.object([], additional: .values(.object(members + [.init("name", shortText)])))

    private static func whole(_ properties: [BodySchema.Property], _ names: [String] = readOnly) -> BodySchema {
        .object(properties + names.map { .init($0, .any) })
    }

    private static let objectMembers: [BodySchema.Property] = [
        .init("name", name, required: true), .init("description", longText), .init("required", .list(shortText)),
        .init("properties", definitions),
    ]

    private static let associationMembers: [BodySchema.Property] = [
        .init("name", name, required: true), .init("prefix", shortText), .init("properties_target", shortText),
    ]

    static let property = whole(members + [.init("name", name, required: true)], ["created_at", "updated_at"])
    static let object = whole(objectMembers)
    static let association = whole(associationMembers, ["created_at", "updated_at"])
    static let tag = whole([.init("name", name, required: true)], ["created_at", "updated_at"])
    static let tags = BodySchema.object([
        .init("tags", .list(.object([.init("name", name, required: true)])), required: true)
    ])
    private static let attributes: [BodySchema.Property] = [
        .init("namespace", name, required: true), .init("display_name", shortText),
        .init("description", .text(MetadataLimits.descriptionLengthMax)),
        .init("visibility", .enumeration(MetadataNamespace.Visibility.allCases.map(\.rawValue))), .init("protected", .strictBoolean),
        .init("owner", .identifier),
    ]

    static let namespace = whole(
        attributes + [
            .init("resource_type_associations", .list(.object(associationMembers))), .init("objects", .list(.object(objectMembers))),
            .init("properties", definitions), .init("tags", .list(.object([.init("name", name, required: true)]))),
        ])

    /// The members of a namespace that are resources of their own.
    static let parts = ["resource_type_associations", "objects", "properties", "tags"]

    /// A client may send back the whole namespace with unchanged parts.
    static let replacement = whole(attributes + parts.map { .init($0, .any) })

    /// The definition of one property, as in responses.
    static let propertyAnswer = BodySchema.object(members + [.init("name", shortText)], additional: .allowed)

    /// - Throws: 403 for members that only the service sets, 400 for a property without a valid name.
    static func check(_ body: JSONValue) throws {
        if let name = readOnly.first(where: { body[$0] != nil }) {
            throw ResourceError.forbidden("Attribute '\(name)' is read-only.")
        }
        let sets = [body["properties"]] + (body["objects"]?.arrayValue ?? []).map { $0["properties"] }
        for name in sets.flatMap({ $0?.objectValue?.names ?? [] }) where name.unicodeScalars.count > MetadataLimits.nameLengthMax {
            throw ResourceError.badRequest(
                """
                The name of a property has at most \(MetadataLimits.nameLengthMax) characters: \
                '\(name.prefix(MetadataLimits.nameLengthMax))…'
                """)
        }
    }
}
