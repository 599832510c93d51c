import ImageCore
import JSON

/// The JSON schemas for clients, generated from the declared attributes.
enum ImageSchemas {
    static var image: JSONValue {
        .object([
            "name": "image", "properties": properties, "additionalProperties": ["type": "string"],
            "links": [
                ["rel": "self", "href": "{self}"], ["rel": "enclosure", "href": "{file}"],
                ["rel": "describedby", "href": "{schema}"],
            ],
        ])
    }

    /// The schema of a task; imports and the tasks of the older API are recorded as tasks.
    static var task: JSONValue {
        let text: JSONValue = ["type": "string"]
        let blob: JSONValue = ["type": ["null", "object"]]
        return [
            "name": "task",
            "properties": [
                "id": ["type": "string", "pattern": uuidPattern],
                "type": ["type": "string", "enum": ["import", "api_image_import", "location_import"]],
                "status": ["type": "string", "enum": ["pending", "processing", "success", "failure"]], "input": blob,
                "result": blob, "owner": text, "message": text, "image_id": text, "request_id": text, "user_id": text,
                "expires_at": ["type": ["null", "string"]], "created_at": text, "updated_at": text,
                "self": ["type": "string", "readOnly": true], "schema": ["type": "string", "readOnly": true],
            ],
        ]
    }

    static var tasks: JSONValue { collection("tasks", of: task) }
    static var images: JSONValue { collection("images", of: image) }
    static var members: JSONValue { collection("members", of: member) }

    static var member: JSONValue {
        [
            "name": "member",
            "properties": [
                "created_at": ["type": "string", "description": "Date and time of image member creation"],
                "image_id": ["type": "string", "pattern": uuidPattern, "description": "An identifier for the image"],
                "member_id": ["type": "string", "description": "An identifier for the image member (tenantId)"],
                "schema": ["type": "string", "readOnly": true],
                "status": [
                    "type": "string", "enum": JSONValue(MemberStatus.allCases.map(\.rawValue)),
                    "description": "The status of this image member",
                ],
                "updated_at": ["type": "string", "description": "Date and time of last modification of image member"],
            ],
        ]
    }

    private static let uuidPattern: JSONValue =
        "^([0-9a-fA-F]){8}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){4}-([0-9a-fA-F]){12}$"

    private static func collection(_ name: String, of element: JSONValue) -> JSONValue {
        [
            "name": .string(name),
            "properties": [
                .init(name): .object(["type": "array", "items": element]), "schema": ["type": "string"],
                "first": ["type": "string"], "next": ["type": "string"],
            ],
            "links": [
                ["rel": "first", "href": "{first}"], ["rel": "next", "href": "{next}"],
                ["rel": "describedby", "href": "{schema}"],
            ],
        ]
    }

    private static var properties: JSONValue {
        var result = JSONObject()
        for attribute in ImageAttribute.all where !ImageAttribute.unpublished.contains(attribute.name) {
            var schema = type(attribute.kind)
            schema["description"] = .string(attribute.summary)
            if attribute.writer == .readOnly, attribute.name != "id" { schema["readOnly"] = true }
            result[attribute.name] = .object(schema)
        }
        for property in ImageAttribute.properties {
            var schema = type(property.kind)
            schema["description"] = .string(property.summary)
            schema["is_base"] = false
            result[property.name] = .object(schema)
        }
        return .object(result)
    }

    private static func type(_ kind: ImageAttribute.Kind) -> JSONObject {
        switch kind {
        case .text(let max): ["type": "string", "maxLength": JSONValue(max)]
        case .nullableText(let max): ["type": ["null", "string"], "maxLength": JSONValue(max)]
        case .word(let words): ["type": "string", "enum": JSONValue(words)]
        case .nullableWord(let words): ["type": ["null", "string"], "enum": .array([.null] + words.map { .string($0) })]
        case .count: ["type": "integer"]
        case .nullableCount: ["type": ["null", "integer"]]
        case .flag: ["type": "boolean"]
        case .words: ["type": "array", "items": ["type": "string", "maxLength": JSONValue(ImageLimits.tagLengthMax)]]
        case .time: ["type": "string"]
        case .uuid: ["type": "string", "pattern": uuidPattern]
        case .nullableUUID: ["type": ["null", "string"], "pattern": uuidPattern]
        case .anything: [:]
        }
    }
}
