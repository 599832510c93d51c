import Authorization
import ImageAccess
import JSON
import Kernel
import WebAPI

/// Filters image properties by Image's property protections. Services act by the cloud's own rules and see all properties; on behalf of
/// a user whose client waits, they see the properties that the user may read.
extension BlockStorageHandlers {
    /// Whether a member of `volume_image_metadata` is a property of the image, and not one of its attributes such as `checksum`.
    static func isImageProperty(_ name: String) -> Bool { !VolumeWorkflows.Upload.uninherited.contains(name) }

    /// The image metadata without the properties that the caller may not read.
    func readable(_ metadata: JSONObject, _ context: RequestContext) throws -> JSONObject {
        let caller = try context.caller
        if caller.has(role: "service"), caller.serviceUserID == nil || caller.isAccepted { return metadata }
        return JSONObject(
            metadata.members.filter { member in
                !BlockStorageHandlers.isImageProperty(member.name) || workflows.images.isReadable(member.name, for: caller)
            }.map { ($0.name, $0.value) })
    }

    /// The response about volumes without the properties that the caller may not read.
    func readable(_ response: Response, _ context: RequestContext) throws -> Response {
        guard workflows.images.protectsProperties, response.status < 300, let bytes = response.bytes,
            var body = try JSONValue.parse(bytes).objectValue
        else { return response }
        if let volumes = body["volumes"]?.arrayValue {
            body["volumes"] = .array(try volumes.map { try readable(volume: $0, context) })
        } else if let volume = body["volume"] {
            body["volume"] = try readable(volume: volume, context)
        }
        var response = response
        response.body = .bytes(JSONValue.object(body).encoded)
        return response
    }

    private func readable(volume: JSONValue, _ context: RequestContext) throws -> JSONValue {
        let name = "volume_image_metadata"
        guard var object = volume.objectValue, let metadata = object[name]?.objectValue else { return volume }
        object[name] = .object(try readable(metadata, context))
        return .object(object)
    }
}
