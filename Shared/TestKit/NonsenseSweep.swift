package import JSON
import Kernel
import ServiceCatalog
import Testing
package import WebAPI

/// Sends malformed input of every kind to every route: the answer must be a 4xx, never a 5xx, within bounded time.
package struct NonsenseSweep: Sendable {
    /// Replacements for a member of a body.
    package static let values: [JSONValue] = [
        nil, true, 0, -1, 9_223_372_036_854_775_807, 1.5, "", "x", "\u{0}", "🐄", "'; DROP TABLE x; --", [], [:], [nil], [[:]],
        ["a": ["b": ["c": []]]], .string(String(repeating: "y", count: 70_000)),
    ]
    private static let texts = ["x", "%00", "%F0%9F%90%84", "..", "%27", "00000000-0000-0000-0000-000000000000", "-1", "%7B%7D"]

    private let api: API
    private let headers: Headers

    /// - Parameter headers: an operator's headers.
    package init(_ api: API, headers: Headers) {
        self.api = api
        self.headers = headers
    }

    /// Variants of the body: each member at every depth replaced by an invalid value, and an additional member.
    private static func mutations(_ body: JSONValue) -> [JSONValue] {
        var result = values
        guard let object = body.objectValue else { return result }
        for member in object.members {
            for value in mutations(member.value) {
                var changed = object
                changed[member.name] = value
                result.append(.object(changed))
            }
        }
        for name in ["", "\u{0}", "id", "nonsense", String(repeating: "n", count: 300)] {
            var changed = object
            changed[name] = "x"
            result.append(.object(changed))
        }
        return result
    }

    /// Sends one request; a status of 500 or above, except 501, is recorded as an issue.
    package func check(_ method: Method, _ target: String, _ body: JSONValue?) async throws {
        var headers = headers
        if method == .patch { headers["content-type"] = "application/openstack-images-v2.1-json-patch" }
        let request: IncomingRequest
        do {
            request = try IncomingRequest(method.rawValue, target, headers: headers, body: body?.encoded ?? [])
        } catch is ResourceError {
            return
        }
        let response = await api.respond(to: request)
        let shown = "\(method.rawValue) \(target.prefix(200)) \(body?.description.prefix(200) ?? "")"
        #expect(response.status < 500 || response.status == 501, "\(shown) → \(String(decoding: response.bytes ?? [], as: UTF8.self))")
    }

    /// Sends invalid values for each part of a path, each query parameter and each member of a body.
    ///
    /// - Parameters:
    ///   - parameters: values of path parameters that name existing resources.
    ///   - bodies: valid bodies by `METHOD /path`, if the schema's sample is not sufficient.
    ///   - excluding: prefixes of paths to skip.
    package func run(
        parameters: [String: String], query: [String], bodies: [String: JSONValue], excluding: String? = nil
    ) async throws {
        for route in api.resources.flatMap(\.routes) where excluding.map({ !route.path.hasPrefix($0) }) ?? true {
            try await run(route, parameters, query, bodies)
        }
    }

    private func run(
        _ route: Route, _ parameters: [String: String], _ query: [String], _ bodies: [String: JSONValue]
    ) async throws {
        let names = route.path.split(separator: "/").filter { $0.hasPrefix("{") }.map { String($0.dropFirst().dropLast()) }
        func target(_ replaced: String? = nil, by text: String = "") -> String {
            let path = route.path.split(separator: "/").map { segment -> String in
                guard segment.hasPrefix("{") else { return String(segment) }
                let name = String(segment.dropFirst().dropLast())
                return name == replaced ? text : parameters[name] ?? "k"
            }
            return "/" + path.joined(separator: "/")
        }
        var sample: JSONValue?
        if case .json(let schema) = route.body {
            sample =
                bodies["\(route.method.rawValue) \(route.path)"]
                ?? schema.sample(version: api.service.negotiation?.maximum ?? Microversion(0, 0))
        }
        for name in names {
            for text in Self.texts { try await check(route.method, target(name, by: text), sample) }
        }
        if route.method == .get {
            for parameter in query {
                for text in Self.texts + ["", "in:%22", "gt:x", "99999999999999999999"] {
                    try await check(.get, target() + "?\(parameter)=\(text)", nil)
                }
            }
        }
        if let sample, route.method != .delete {
            for body in Self.mutations(sample) { try await check(route.method, target(), body) }
        }
    }
}
