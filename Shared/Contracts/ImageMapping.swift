package import JSON
package import Kernel

/// The property `block_device_mapping` of images: the disks of servers that are created from them.
package enum ImageMapping {
    /// The entries; none without the property.
    ///
    /// - Parameters:
    ///   - properties: of the image.
    ///   - image: its id, for errors.
    /// - Throws: 400 for a mapping that is not a list, or not JSON.
    package static func entries(_ properties: JSONObject, image: String) throws -> [JSONValue] {
        guard let value = properties["block_device_mapping"], !value.isNull, value != "" else { return [] }
        let list: [JSONValue]?
        if let text = value.stringValue {
            do { list = try JSONValue.parse(text).arrayValue } catch { throw refusal(image, "is not JSON") }
        } else {
            list = value.arrayValue
        }
        guard let list else { throw refusal(image, "is not a list") }
        return list
    }

    package static func refusal(_ image: String, _ reason: String) -> ResourceError {
        .badRequest("Image \(image) has a block_device_mapping that \(reason).")
    }
}
