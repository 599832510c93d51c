import JSON

/// The JSON schemas of metadata definitions, with the members and limits of Glance's.
enum MetadataDefinitionSchemas {
    /// The schemas by the last segment of their path.
    static var all: [(name: String, schema: JSONValue)] {
        let associations = associationSchema
        return [
            ("namespace", namespaceSchema(defined: true)),
            ("namespaces", collection("namespaces", of: namespaceSchema(defined: false), defined: true)),
            ("object", objectSchema(defined: true)),
            ("objects", collection("objects", of: objectSchema(defined: false), defined: true)),
            ("property", propertySchema(named: true)),
            ("properties", propertiesSchema),
            ("resource_type", associations),
            ("resource_types", collection("resource_type_associations", of: associations)),
            ("tag", tagSchema), ("tags", collection("tags", of: tagSchema)),
        ]
    }

    // MARK: parts

    private static let text: JSONValue = ["type": "string"]
    private static let name: JSONValue = ["type": "string", "maxLength": 80]
    private static let fixed: JSONValue = ["type": "string", "readOnly": true]
    private static let time: JSONValue = ["type": "string", "readOnly": true, "format": "date-time"]

    private static func reference(_ name: String) -> JSONValue { ["$ref": .string("#/definitions/\(name)")] }

    private static let definitions: JSONValue = [
        "positiveInteger": ["type": "integer", "minimum": 0],
        "positiveIntegerDefault0": ["allOf": [["$ref": "#/definitions/positiveInteger"], ["default": 0]]],
        "stringArray": ["type": "array", "items": ["type": "string"], "uniqueItems": true],
        "property": [
            "type": "object",
            "additionalProperties": ["type": "object", "required": ["title", "type"], "properties": propertyMembers],
        ],
    ]

    private static let propertyMembers: JSONValue = [
        "name": name, "title": text, "description": text, "operators": ["type": "array", "items": text],
        "type": ["type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string", nil]],
        "required": reference("stringArray"), "minimum": ["type": "number"], "maximum": ["type": "number"],
        "maxLength": reference("positiveInteger"), "minLength": reference("positiveIntegerDefault0"),
        "pattern": ["type": "string", "format": "regex"], "enum": ["type": "array"], "readonly": ["type": "boolean"],
        "default": [:],
        "items": [
            "type": "object",
            "properties": [
                "type": ["type": "string", "enum": ["array", "boolean", "integer", "number", "object", "string", nil]],
                "enum": ["type": "array"],
            ],
        ],
        "maxItems": reference("positiveInteger"), "minItems": reference("positiveIntegerDefault0"),
        "uniqueItems": ["type": "boolean", "default": false], "additionalItems": ["type": "boolean"],
    ]

    private static let association: JSONValue = [
        "type": "object", "properties": ["name": text, "prefix": text, "properties_target": text],
    ]

    private static func collection(_ name: String, of element: JSONValue, defined: Bool = false) -> JSONValue {
        var schema: JSONObject = [
            "name": .string(name),
            "properties": [
                .init(name): .object(["type": "array", "items": element]), "schema": text, "first": text, "next": text,
            ],
            "links": [
                ["rel": "first", "href": "{first}"], ["rel": "next", "href": "{next}"], ["rel": "describedby", "href": "{schema}"],
            ],
        ]
        if defined { schema["definitions"] = definitions }
        return .object(schema)
    }

    // MARK: kinds

    private static func namespaceSchema(defined: Bool) -> JSONValue {
        var schema: JSONObject = [
            "name": "namespace", "required": ["namespace"],
            "properties": [
                "namespace": ["type": "string", "maxLength": 80, "description": "The namespace's unique name."],
                "display_name": ["type": "string", "maxLength": 80, "description": "The display name."],
                "description": ["type": "string", "maxLength": 500, "description": "The purpose of the namespace."],
                "visibility": ["type": "string", "enum": ["public", "private"], "description": "Who may read it."],
                "protected": ["type": "boolean", "description": "Whether it cannot be deleted."],
                "owner": ["type": "string", "maxLength": 255, "description": "The project that owns it."],
                "created_at": time, "updated_at": time, "schema": fixed, "self": fixed,
                "resource_type_associations": ["type": "array", "items": association],
                "properties": reference("property"),
                "objects": [
                    "type": "array",
                    "items": [
                        "type": "object",
                        "properties": [
                            "name": text, "description": text, "required": reference("stringArray"), "properties": reference("property"),
                        ],
                    ],
                ],
                "tags": ["type": "array", "items": ["type": "object", "properties": ["name": text]]],
            ],
        ]
        if defined { schema["definitions"] = definitions }
        return .object(schema)
    }

    private static func objectSchema(defined: Bool) -> JSONValue {
        var schema: JSONObject = [
            "name": "object", "required": ["name"],
            "properties": [
                "name": name, "description": text, "required": reference("stringArray"), "properties": reference("property"),
                "schema": fixed, "self": fixed, "created_at": time, "updated_at": time,
            ],
        ]
        if defined { schema["definitions"] = definitions }
        return .object(schema)
    }

    private static func propertySchema(named: Bool) -> JSONValue {
        [
            "name": "property", "required": named ? ["type", "title", "name"] : ["type", "title"], "properties": propertyMembers,
            "definitions": definitions,
        ]
    }

    /// Properties are members of an object, by name.
    private static var propertiesSchema: JSONValue {
        [
            "name": "properties",
            "properties": [
                "properties": ["type": "object", "additionalProperties": propertySchema(named: false)], "schema": text,
                "first": text, "next": text,
            ],
            "definitions": definitions,
            "links": [
                ["rel": "first", "href": "{first}"], ["rel": "next", "href": "{next}"], ["rel": "describedby", "href": "{schema}"],
            ],
        ]
    }

    private static let associationSchema: JSONValue = [
        "name": "resource_type_association", "required": ["name"],
        "properties": ["name": name, "prefix": name, "properties_target": name, "created_at": time, "updated_at": time],
    ]

    private static let tagSchema: JSONValue = [
        "name": "tag", "required": ["name"], "properties": ["name": name, "created_at": time, "updated_at": time],
    ]
}
