import Authorization
import Database
import ImageAccess
import ImageCore
import JSON
import Kernel
import WebAPI

/// The cache of the machine that handles the request.
extension ImageHandlers {
    var cacheResource: Resource {
        let image = "/v2/cache/{image_id}"
        return Resource(
            "image cache",
            routes: [
                Route(
                    .get, "/v2/cache", action: "cache_list", rule: ImageRules.rule("cache_list"),
                    answer: .form(ImageHandlers.cacheState), "Cached and queued images", handler: listCache),
                Route(
                    .delete, "/v2/cache", action: "cache_delete", rule: ImageRules.rule("cache_delete"), status: 204,
                    "Empty the cache and its queue", handler: clearCache),
                Route(
                    .put, image, action: "cache_image", rule: ImageRules.rule("cache_image"), status: 202, "Queue an image for the cache",
                    handler: queueImage),
                Route(
                    .delete, image, action: "cache_delete", rule: ImageRules.rule("cache_delete"), status: 204,
                    "Remove an image from the cache", handler: uncacheImage),
                Route(
                    .post, "/v2/cache/clean", action: "cache_clean", rule: ImageRules.rule("cache_clean"),
                    "Remove data that does not belong in the cache"
                ) { context in
                    try await tidyCache(context, for: "cache_clean") { cache in
                        try await cache.clean()
                        return .empty(200)
                    }
                },
                Route(
                    .post, "/v2/cache/prune", action: "cache_prune", rule: ImageRules.rule("cache_prune"),
                    answer: .form(ImageHandlers.pruned), "Remove images that exceed the size of the cache"
                ) { context in
                    try await tidyCache(context, for: "cache_prune") { cache in
                        let pruned = try await cache.prune()
                        return .json(200, ["total_files_pruned": JSONValue(pruned.files), "total_bytes_pruned": JSONValue(pruned.bytes)])
                    }
                },
            ])
    }

    private static let wholeNumber = BodySchema.integer(min: 0, max: .max)

    private static let pruned = BodySchema.object([
        .init("total_files_pruned", ImageHandlers.wholeNumber, required: true),
        .init("total_bytes_pruned", ImageHandlers.wholeNumber, required: true),
    ])

    private static let cacheState = BodySchema.object([
        .init(
            "cached_images",
            .list(
                .object([
                    .init("image_id", .uuid, required: true), .init("hits", ImageHandlers.wholeNumber, required: true),
                    .init("size", ImageHandlers.wholeNumber, required: true),
                    .init("last_accessed", .number, required: true), .init("last_modified", .number, required: true),
                ])), required: true), .init("queued_images", .list(.uuid), required: true),
    ])

    /// - Throws: 404 if the cache is off.
    private func presentCache() throws -> MachineImageCache {
        guard let cache else { throw ResourceError.notFound("Caching via API is not supported at this site.") }
        return cache
    }

    /// Records the request, then changes the machine's files, outside of the transaction.
    private func tidyCache(
        _ context: RequestContext, for action: String, _ work: @escaping @Sendable (MachineImageCache) async throws -> Response
    ) async throws -> Response {
        let decision = try context.authorize(target: .none)
        let cache = try presentCache()
        let machine = cache.store.machine
        return try await context.write(
            database,
            begin: { _ in
                try decision.value(for: action)
                return BegunWork(.null, "image cache", machine)
            }, finish: { _ in try await work(cache) })
    }

    private func listCache(_ context: RequestContext) async throws -> Response {
        try context.authorize(target: .none)
        let store = try presentCache().store
        return try await database.read { connection in
            let state = try store.state(connection)
            return .json(200, ["cached_images": .array(state.cached), "queued_images": JSONValue(state.queued)])
        }
    }

    private func queueImage(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        return try await context.write(database) { connection in
            let image = try authorized(connection, context, id)
            let store = try presentCache().store
            guard image.value.status == .active else {
                throw ResourceError.badRequest("Only images with status active can be targeted for queueing")
            }
            try store.queue(connection, image, now: context.ambient.now)
            return Change(.empty(202), "image", id)
        }
    }

    private func uncacheImage(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let response = try await context.write(database) { connection in
            let image = try authorized(connection, context, id)
            try presentCache().store.remove(connection, image)
            return Change(.empty(), "image", id)
        }
        try await presentCache().removeUnknown()
        return response
    }

    private func clearCache(_ context: RequestContext) async throws -> Response {
        let text = context.headers["x-image-cache-clear-target"]?.lowercased() ?? ""
        let decision = try context.authorize(CacheTarget(rawValue: text) ?? .all, target: .none)
        let cache = try presentCache()
        guard CacheTarget(rawValue: text) != nil else {
            throw ResourceError.badRequest("If provided 'x-image-cache-clear-target' must be 'cache', 'queue' or empty string.")
        }
        let store = cache.store
        let response = try await context.write(database) { connection in
            try store.clear(connection, decision)
            return Change(.empty(), "image cache", store.machine)
        }
        try await cache.removeUnknown()
        return response
    }
}
