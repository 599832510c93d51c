import Kernel
import WebAPI

/// The forms of responses that are not resources of a `ResourceKind`.
enum PlacementForms {
    /// Amounts by resource class.
    static let amounts = BodySchema.object([], additional: .values(.count))
    private static let generation = BodySchema.Property.required("resource_provider_generation", .count)

    static let aggregates = BodySchema.object([
        .required("aggregates", .many(.anyText)),
        .init("resource_provider_generation", .count, versions: VersionRange(from: Microversion(1, 19))),
    ])
    static let traits = BodySchema.wrapped("traits", .many(.anyText))
    static let providerTraits = BodySchema.object([.required("traits", .many(.anyText)), generation])
    static let resourceClass = BodySchema.object([.required("name", .anyText), .required("links", .links)])
    static let resourceClasses = BodySchema.wrapped("resource_classes", .many(resourceClass))
    static let providerUsages = BodySchema.object([generation, .required("usages", amounts)])
    /// By resource class; since 1.38 by type of consumer, with the number of consumers.
    static let usages = BodySchema.wrapped("usages", .object([], additional: .values(.oneOf([.count, amounts]))))

    /// By the id of a provider or of a consumer.
    private static let allocations = BodySchema.object(
        [], additional: .values(.object([.required("resources", amounts)], additional: .allowed)))
    static let consumerAllocations = BodySchema.object([
        .required("allocations", allocations), .init("project_id", .anyText), .init("user_id", .anyText),
        .init("consumer_generation", .nullable(.count)), .init("consumer_type", .nullable(.anyText)),
    ])
    static let providerAllocations = BodySchema.object([.required("allocations", allocations), generation])
    static let candidates = BodySchema.object([
        .required(
            "allocation_requests",
            .many(
                .object([
                    .required("allocations", .any),
                    .init("mappings", .object([], additional: .allowed), versions: VersionRange(from: Microversion(1, 34))),
                ]))),
        .required("provider_summaries", .object([], additional: .values(.object([.required("resources", .any)], additional: .allowed)))),
    ])
}
