package import JSON
import Kernel

/// The response of a route, for the OpenAPI document.
package enum RouteAnswer: Sendable {
    /// Not declared: the document only says that there is a response.
    case undeclared
    case one(ResourceKind)
    case list(ResourceKind)
    /// A response that is not a resource, declared like request bodies: tags, metadata, limits.
    case form(BodySchema)
}

extension RouteAnswer {
    /// The JSON Schema 2020-12 of the response's body; nil if it is not declared.
    ///
    /// It has the fields of all versions. Fields that some callers or versions do not see are not required.
    package var openAPI: JSONValue? {
        switch self {
        case .undeclared: return nil
        case .form(let schema): return schema.openAPI
        case .one(let kind):
            switch kind.envelope {
            case .named, .nested: return .responseObject([(kind.name, kind.openAPI)])
            case .bare, .keyed: return kind.openAPI
            }
        case .list(let kind):
            var rows: JSONObject = ["type": "array"]
            switch kind.envelope {
            case .keyed: rows = ["type": "object", "additionalProperties": kind.openAPI]
            case .nested: rows["items"] = .responseObject([(kind.name, kind.openAPI)])
            case .named, .bare: rows["items"] = kind.openAPI
            }
            return .responseObject([(kind.plural, .object(rows))], isOpen: true)
        }
    }
}

extension ResourceKind {
    /// The JSON Schema 2020-12 of one resource.
    package var openAPI: JSONValue {
        var isOpen = false
        var properties = JSONObject()
        for field in table.fields where field.presence != .never {
            if case .members = field.kind {
                isOpen = true
                continue
            }
            // Fields with the same name can have different forms in different versions.
            let others = properties[field.name].map { $0["anyOf"]?.arrayValue ?? [$0] }
            properties[field.name] = others.map { ["anyOf": .array($0 + [field.openAPI])] } ?? field.openAPI
        }
        let shown = table.fields.filter { field in
            if case .members = field.kind { return false }
            return field.presence == .always && field.versions == .all && field.visibleBy == nil
        }
        return [
            "type": "object", "properties": .object(properties), "required": JSONValue(shown.map(\.name)),
            "additionalProperties": .bool(isOpen),
        ]
    }
}

extension Field {
    /// The JSON Schema 2020-12 of the value.
    package var openAPI: JSONValue {
        let link: JSONValue = .responseObject([("rel", ["type": "string"]), ("href", ["type": "string", "format": "uri-reference"])])
        let links: JSONValue = ["type": "array", "items": link]
        var schema: JSONObject
        switch kind {
        case .text: schema = ["type": ["string", "null"]]
        case .number, .decimal: schema = ["type": ["number", "null"]]
        case .boolean: schema = ["type": ["boolean", "null"]]
        case .timestamp, .timestampMicroseconds: schema = ["type": ["string", "null"], "format": "date-time"]
        case .json: schema = shape?.openAPI.objectValue ?? [:]
        case .members: schema = [:]
        case .links: schema = links.objectValue ?? [:]
        case .linkMap(let all):
            schema = JSONValue.responseObject(all.map { ($0.rel, ["type": "string", "format": "uri-reference"]) }).objectValue ?? [:]
        case .reference:
            schema = ["oneOf": [["type": ["string", "null"]], .responseObject([("id", ["type": "string"]), ("links", links)])]]
        case .extendedReference:
            schema = [
                "oneOf": [["type": ["string", "null"]], .responseObject([("id", ["type": "string"]), ("links", links)], isOpen: true)]
            ]
        }
        if let from = versions.from { schema["x-min-version"] = .string(from.description) }
        if let through = versions.through { schema["x-max-version"] = .string(through.description) }
        if let visibleBy { schema["x-policy-action"] = .string(visibleBy) }
        return .object(schema)
    }
}

extension JSONValue {
    /// The schema of an object that always has these members.
    fileprivate static func responseObject(_ members: [(String, JSONValue)], isOpen: Bool = false) -> JSONValue {
        [
            "type": "object", "properties": .object(JSONObject(members)), "required": JSONValue(members.map(\.0)),
            "additionalProperties": .bool(isOpen),
        ]
    }
}
