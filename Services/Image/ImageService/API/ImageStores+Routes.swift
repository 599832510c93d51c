import Authorization
import Database
import ImageAccess
import ImageCore
import JSON
import Kernel
import WebAPI

/// The stores of the cloud, and the images in them.
extension ImageHandlers {
    var storeResource: Resource {
        Resource(
            "image store",
            routes: [
                Route(
                    .get, "/v2/info/stores", action: "get_stores_info", rule: ImageRules.rule("get_stores_info"),
                    answer: .form(ImageHandlers.storeList([])), "Stores"
                ) { context in
                    try context.authorize(target: .none)
                    return .json(200, ["stores": .array(stores.all.map { JSONValue.object(entry($0)) })])
                },
                Route(
                    .get, "/v2/info/stores/detail", action: "stores_info_detail", rule: ImageRules.rule("stores_info_detail"),
                    answer: .form(
                        ImageHandlers.storeList([
                            .init("type", .text, required: true), .init("properties", .object([], additional: .allowed), required: true),
                        ])), "Stores in detail"
                ) { context in
                    try context.authorize(target: .none)
                    let details = stores.all.map { store -> JSONValue in
                        var entry = entry(store)
                        entry["type"] = .string(type(of: store.driver).type)
                        entry["properties"] = store.driver.properties
                        return .object(entry)
                    }
                    return .json(200, ["stores": .array(details)])
                },
                Route(
                    .delete, "/v2/stores/{store_id}/{image_id}", action: "delete_image_location",
                    rule: ImageRules.rule("delete_image_location"), status: 204, "Delete an image's data from a store",
                    handler: leaveStore),
            ])
    }

    private static func storeList(_ details: [BodySchema.Property]) -> BodySchema {
        .object([
            .init(
                "stores", .list(.object([.init("id", .text, required: true), .init("default", .text)] + details)), required: true)
        ])
    }

    /// Glance writes "true" as a string, and omits it for all other stores.
    private func entry(_ store: NamedStore) -> JSONObject {
        var entry: JSONObject = ["id": .string(store.name)]
        if store.name == stores.defaultStore.name { entry["default"] = "true" }
        return entry
    }

    private func leaveStore(_ context: RequestContext) async throws -> Response {
        let (id, store) = (try id(context), context.parameter("store_id"))
        let removed = Box<String?>(nil)
        let response = try await context.write(database) { connection in
            let decision = try authorized(connection, context, id)
            let image = decision.value
            guard storeNames.contains(store) else {
                throw ResourceError.conflict("The selected store '\(store.prefix(64))' is not available on this node.")
            }
            guard image.status == .active else {
                throw ResourceError.conflict("It's not allowed to remove image data from store if image status is not 'active'")
            }
            guard image.importTask == nil else {
                throw ResourceError.conflict("The image \(id) is being copied to other stores. Its data can be removed afterwards.")
            }
            guard image.storeNames.contains(store) else {
                throw ResourceError.notFound("Image \(id) is not stored in store \(store).")
            }
            guard image.storeNames.count > 1, let size = image.size else {
                throw ResourceError.forbidden(
                    "Cannot delete image data from the only store containing it. Consider deleting the image instead.")
            }
            try ImageStoreStore.leave(connection, decision, store, now: context.ambient.now)
            try Quota.release(connection, project: image.owner, [(ImageQuotas.size, ImageQuotas.mebibytes(size))])
            removed.value = image.fileID
            return Change(.empty(), "image", id, content: ["left_store": .string(store)])
        }
        if let file = removed.value { await remove(file, from: store, context.log) }
        return response
    }
}
