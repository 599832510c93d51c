package import JSON
import Kernel
import ServiceCatalog

/// The OpenAPI 3.1 document of a service, from its declarations; without routes that only answer 501.
package enum OpenAPI {
    package static func document(_ api: API) -> JSONValue {
        var paths = JSONObject()
        for resource in api.resources {
            for route in resource.routes where !route.isUnavailable {
                var item = paths[route.path]?.objectValue ?? JSONObject()
                let method = route.method.rawValue.lowercased()
                item[method] = merge(item[method]?.objectValue, operation(route, resource))
                paths[route.path] = .object(item)
            }
        }
        return [
            "openapi": "3.1.0",
            "info": [
                "title": .string(api.service.title),
                "version": .string(api.service.negotiation?.maximum.description ?? "1"),
            ],
            "paths": .object(paths),
            "components": [
                "securitySchemes": ["token": ["type": "apiKey", "in": "header", "name": "X-Auth-Token"]]
            ],
        ]
    }

    private static func operation(_ route: Route, _ resource: Resource) -> JSONObject {
        var operation: JSONObject = [
            "tags": [.string(resource.name)], "summary": .string(route.summary),
            "responses": .object(JSONObject([(String(route.status), response(route))])),
        ]
        let place = RequestRouter.segments(route.path).filter { $0.hasPrefix("{") }.map { segment -> JSONValue in
            [
                "name": .string(String(segment.dropFirst().dropLast())), "in": "path", "required": true,
                "schema": ["type": "string"],
            ]
        }
        let parameters = place + (route.method == .get ? route.answer.queryParameters : [])
        if !parameters.isEmpty { operation["parameters"] = .array(parameters) }
        if let action = route.action {
            operation["security"] = [["token": []]]
            operation["x-policy-action"] = .string(action)
            operation["x-policy-default"] = .string(route.rule)
        }
        if let from = route.versions.from { operation["x-min-version"] = .string(from.description) }
        if let through = route.versions.through { operation["x-max-version"] = .string(through.description) }
        switch route.body {
        case .none: break
        case .json(let schema), .optionalJSON(let schema):
            operation["requestBody"] = ["content": ["application/json": ["schema": schema.openAPI]]]
        case .stream:
            operation["requestBody"] = ["content": ["application/octet-stream": ["schema": ["type": "string"]]]]
        }
        return operation
    }

    private static func response(_ route: Route) -> JSONValue {
        var response: JSONObject = ["description": "success"]
        if let schema = route.answer.openAPI { response["content"] = ["application/json": ["schema": schema]] }
        return .object(response)
    }

    /// Actions on one path become alternatives of one operation.
    private static func merge(_ earlier: JSONObject?, _ new: JSONObject) -> JSONValue {
        guard var earlier else { return .object(new) }
        func schemas(_ operation: JSONObject) -> [JSONValue] {
            guard let schema = operation["requestBody"]?["content"]?["application/json"]?["schema"] else { return [] }
            return schema["oneOf"]?.arrayValue ?? [schema]
        }
        let alternatives = schemas(earlier) + schemas(new)
        if !alternatives.isEmpty {
            earlier["requestBody"] = ["content": ["application/json": ["schema": ["oneOf": .array(alternatives)]]]]
        }
        let parameters = earlier["parameters"]?.arrayValue ?? []
        let more = (new["parameters"]?.arrayValue ?? []).filter { item in
            !parameters.contains { $0["name"] == item["name"] && $0["in"] == item["in"] }
        }
        if !more.isEmpty { earlier["parameters"] = .array(parameters + more) }
        return .object(earlier)
    }
}

extension BodySchema {
    /// The schema as JSON Schema 2020-12.
    package var openAPI: JSONValue {
        switch self {
        case .any: return [:]
        case .string(let min, let max, let format):
            var object: JSONObject = ["type": "string", "minLength": JSONValue(min), "maxLength": JSONValue(max)]
            if let format { object["format"] = .string(format.rawValue) }
            return .object(object)
        case .integer(let min, let max):
            return ["type": "integer", "minimum": JSONValue(min), "maximum": JSONValue(max)]
        case .number: return ["type": "number"]
        case .boolean, .strictBoolean: return ["type": "boolean"]
        case .enumeration(let words): return ["type": "string", "enum": JSONValue(words)]
        case .array(let element, let min, let max):
            return ["type": "array", "items": element.openAPI, "minItems": JSONValue(min), "maxItems": JSONValue(max)]
        case .nullable(let inner): return ["oneOf": [inner.openAPI, ["type": "null"]]]
        case .oneOf(let choices): return ["oneOf": .array(choices.map(\.openAPI))]
        case .object(let properties, let additional):
            var object: JSONObject = [
                "type": "object",
                "properties": .object(JSONObject(properties.map { ($0.name, $0.schema.openAPI) })),
            ]
            let required = properties.filter { $0.required && $0.versions == .all }.map(\.name)
            if !required.isEmpty { object["required"] = JSONValue(required) }
            switch additional {
            case .forbidden: object["additionalProperties"] = false
            case .allowed: object["additionalProperties"] = true
            case .values(let schema): object["additionalProperties"] = schema.openAPI
            }
            return .object(object)
        }
    }
}
