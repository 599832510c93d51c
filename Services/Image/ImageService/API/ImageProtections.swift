import Authorization
import ImageAccess
import ImageCore
import JSON
import Kernel
import WebAPI

/// The property protections of the operator. Services can read and set all properties, except while they act for a user whose client is
/// waiting: then the user's permissions apply.
extension ImageHandlers {
    private static func isCloud(_ caller: Caller) -> Bool {
        caller.has(role: "service") && (caller.serviceUserID == nil || caller.isAccepted)
    }

    private func allow(_ operation: PropertyProtections.Operation, _ property: String, _ context: RequestContext) throws -> Bool {
        guard let protections = limits.protections else { return true }
        let caller = try context.caller
        return ImageHandlers.isCloud(caller) || protections.allow(operation, property) { caller.has(role: $0) }
    }

    /// - Throws: 403 naming the first property that the caller may not change.
    func checkProperties(_ context: RequestContext, _ before: JSONObject, _ after: JSONObject) throws {
        guard let protections = limits.protections else { return }
        let caller = try context.caller
        if ImageHandlers.isCloud(caller) { return }
        try protections.check(before, after) { caller.has(role: $0) }
    }

    /// Refuses filters by properties that the caller may not read, because they would reveal the properties' values.
    ///
    /// - Throws: 403 naming the property.
    func checkFilters(_ context: RequestContext) throws {
        guard limits.protections != nil else { return }
        for (name, _) in context.query.items where !ImageHandlers.isAttribute(name) && !ImageHandlers.listParameters.contains(name) {
            guard try allow(.read, name, context) else {
                throw ResourceError.forbidden("Property '\(name.prefix(64))' is protected")
            }
        }
    }

    private static let listParameters: Set<String> = [
        "limit", "marker", "sort", "sort_key", "sort_dir", "tag", "size_min", "size_max", "member_status",
    ]

    private static func isAttribute(_ name: String) -> Bool {
        ImageAttribute.byName[name] != nil || name.hasPrefix(ImageAttribute.reservedPrefix)
    }

    /// The response without the properties that the caller may not read.
    func readable(_ response: Response, _ context: RequestContext) throws -> Response {
        guard limits.protections != nil, response.status < 300, let bytes = response.bytes,
            var body = try JSONValue.parse(bytes).objectValue
        else { return response }
        var response = response
        if let images = body["images"]?.arrayValue {
            body["images"] = .array(try images.map { .object(try readable($0.objectValue ?? [:], context)) })
        } else {
            body = try readable(body, context)
        }
        response.body = .bytes(JSONValue.object(body).encoded)
        return response
    }

    private func readable(_ image: JSONObject, _ context: RequestContext) throws -> JSONObject {
        var image = image
        for name in image.names where !ImageHandlers.isAttribute(name) {
            if try !allow(.read, name, context) { image[name] = nil }
        }
        return image
    }
}
