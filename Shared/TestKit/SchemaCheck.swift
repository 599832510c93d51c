package import JSON
import Kernel
package import WebAPI

/// Compares values with the response schemas of the OpenAPI document. Supports the keywords of JSON Schema 2020-12 that
/// `RouteAnswer` writes.
package enum SchemaCheck {
    /// The violations with their position in the value; empty if the value is valid.
    package static func findings(_ value: JSONValue, _ schema: JSONValue, at place: String = "") -> [String] {
        if let choices = schema["oneOf"]?.arrayValue {
            let fitting = choices.filter { findings(value, $0).isEmpty }.count
            return fitting == 1 ? [] : ["\(place): \(value) fits \(fitting) of \(choices.count) forms"]
        }
        if let choices = schema["anyOf"]?.arrayValue {
            return choices.contains { findings(value, $0).isEmpty } ? [] : ["\(place): \(value) fits none of \(choices.count) forms"]
        }
        if let type = schema["type"] {
            let types = type.arrayValue ?? [type]
            let isWhole = value.intValue != nil && types.contains("integer")
            guard isWhole || types.contains(where: { $0.stringValue == name(value) }) else { return ["\(place): \(value) is not \(type)"] }
        }
        if let problem = bounds(value, schema) { return ["\(place): \(value) \(problem)"] }
        if let items = value.arrayValue, let schema = schema["items"] {
            return items.enumerated().flatMap { findings($1, schema, at: "\(place)[\($0)]") }
        }
        guard let object = value.objectValue else { return [] }
        let properties = schema["properties"]?.objectValue
        var result = (schema["required"]?.arrayValue ?? []).compactMap(\.stringValue).filter { object[$0] == nil }.map {
            "\(place): \($0) is missing"
        }
        for member in object.members {
            let inside = "\(place).\(member.name)"
            if let property = properties?[member.name] {
                result += findings(member.value, property, at: inside)
            } else if let others = schema["additionalProperties"] {
                if others == .bool(false) { result.append("\(inside) is not declared") }
                if others.objectValue != nil { result += findings(member.value, others, at: inside) }
            }
        }
        return result
    }

    /// The violation of a limit on a text's length, a number or an array's count; nil if there is none.
    private static func bounds(_ value: JSONValue, _ schema: JSONValue) -> String? {
        if let words = schema["enum"]?.arrayValue, !words.contains(value) { return "is none of \(words)" }
        let measures: [(String, String, Int?)] = [
            ("minLength", "maxLength", value.stringValue?.unicodeScalars.count), ("minimum", "maximum", value.intValue),
            ("minItems", "maxItems", value.arrayValue?.count),
        ]
        for case (let least, let most, let size?) in measures {
            if let least = schema[least]?.intValue, size < least { return "is less than \(least)" }
            if let most = schema[most]?.intValue, size > most { return "is more than \(most)" }
        }
        return nil
    }

    private static func name(_ value: JSONValue) -> String {
        if value.isNull { return "null" }
        if value.stringValue != nil { return "string" }
        if value.boolValue != nil { return "boolean" }
        if value.arrayValue != nil { return "array" }
        return value.objectValue != nil ? "object" : "number"
    }
}

extension API {
    /// The differences between a response and the declaration of the route `path`; empty if the route declares nothing.
    package func answerFindings(_ method: Method, _ path: String, _ answer: JSONValue) -> [String] {
        let segments = path.split(separator: "/")
        let route = resources.flatMap(\.routes).first { route in
            let pattern = route.path.split(separator: "/")
            return route.method == method && pattern.count == segments.count
                && zip(pattern, segments).allSatisfy { $0 == $1 || $0.hasPrefix("{") }
        }
        guard let schema = route?.answer.openAPI else { return [] }
        return SchemaCheck.findings(answer, schema, at: "\(method.rawValue) \(path)")
    }
}
