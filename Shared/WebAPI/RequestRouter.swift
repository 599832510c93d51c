import Kernel

/// The routing table of a service, built once from its resources.
struct RequestRouter: Sendable {
    private final class Node: Sendable {
        let literals: [String: Node]
        let parameter: Node?
        /// Method → routes; several if body keys or versions distinguish them.
        let routes: [Method: [Route]]

        init(literals: [String: Node], parameter: Node?, routes: [Method: [Route]]) {
            self.literals = literals
            self.parameter = parameter
            self.routes = routes
        }
    }

    enum Match: Sendable {
        case routes([Route], segments: [String])
        case methodNotAllowed([Method])
        case notFound
    }

    private let root: Node

    init(_ routes: [Route]) {
        root = RequestRouter.node(routes.map { (RequestRouter.segments($0.path), $0) })
    }

    static func segments(_ path: String) -> [String] {
        path.split(separator: "/", omittingEmptySubsequences: true).map(String.init)
    }

    private static func node(_ entries: [([String], Route)]) -> Node {
        var here: [Method: [Route]] = [:]
        var literal: [String: [([String], Route)]] = [:]
        var parameter: [([String], Route)] = []
        for (segments, route) in entries {
            guard let first = segments.first else {
                here[route.method, default: []].append(route)
                continue
            }
            let rest = Array(segments.dropFirst())
            if first.hasPrefix("{") { parameter.append((rest, route)) } else { literal[first, default: []].append((rest, route)) }
        }
        return Node(
            literals: literal.mapValues { node($0) }, parameter: parameter.isEmpty ? nil : node(parameter), routes: here)
    }

    /// Finds the routes for a path; literal segments win over parameters.
    func match(_ method: String, _ segments: [String]) -> Match {
        guard let node = RequestRouter.find(root, segments[...]) else { return .notFound }
        let wanted = Method(rawValue: method)
        if let wanted, let routes = node.routes[wanted] { return .routes(routes, segments: segments) }
        if wanted == .head, let routes = node.routes[.get] { return .routes(routes, segments: segments) }
        return .methodNotAllowed(node.routes.keys.sorted { $0.rawValue < $1.rawValue })
    }

    private static func find(_ node: Node, _ segments: ArraySlice<String>) -> Node? {
        guard let first = segments.first else { return node.routes.isEmpty ? nil : node }
        if let next = node.literals[first], let found = find(next, segments.dropFirst()) { return found }
        return node.parameter.flatMap { find($0, segments.dropFirst()) }
    }

    /// The values of a route's `{parameters}`.
    static func parameters(_ route: Route, _ segments: [String]) -> [String: String] {
        var parameters: [String: String] = [:]
        for (pattern, value) in zip(RequestRouter.segments(route.path), segments) where pattern.hasPrefix("{") {
            parameters[String(pattern.dropFirst().dropLast())] = value
        }
        return parameters
    }
}
