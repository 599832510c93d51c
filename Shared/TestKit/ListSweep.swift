import JSON
import Kernel
import Testing
package import WebAPI

/// Walks lists page by page and compares with the whole.
package struct ListSweep: Sendable {
    private let api: API
    private let token: String
    private let headers: [(String, String)]

    package init(_ api: API, token: String, headers: [(String, String)] = []) {
        self.api = api
        self.token = token
        self.headers = headers
    }

    /// Sorts the list by each key in both directions and walks it in pages of one and of two by `marker`: the pages
    /// together are the list, each item once and in the list's order.
    ///
    /// - Parameters:
    ///   - target: path, and query if the list needs one.
    ///   - key: the member used as marker; dots lead into nested objects (`keypair.name`).
    /// - Returns: the number of pages that were read.
    @discardableResult
    package func walk(_ target: String, collection: String, key: String = "id", sortKeys: [String]) async throws -> Int {
        var pages = 0
        for sortKey in sortKeys {
            for direction in ["asc", "desc"] {
                let query = "sort_key=\(sortKey)&sort_dir=\(direction)"
                pages += try await walk(target + (target.contains("?") ? "&" : "?") + query, collection: collection, key: key)
            }
        }
        return pages
    }

    /// Reads the list in pages of one and of two, in its default order.
    @discardableResult
    package func walk(_ target: String, collection: String, key: String = "id") async throws -> Int {
        let separator = target.contains("?") ? "&" : "?"
        let whole = try await ids(target, collection, key)
        #expect(Set(whole).count == whole.count, "\(target) has an item twice")
        #expect(whole.count > 1, "\(target) needs two items at least to be walked")
        var pages = 0
        for size in [1, 2] {
            var found: [String] = []
            var marker: String?
            while true {
                let position = marker.map { "&marker=" + PercentEncoding.encode($0) } ?? ""
                let page = try await ids("\(target)\(separator)limit=\(size)\(position)", collection, key)
                pages += 1
                #expect(page.count <= size, "\(target) with limit \(size)")
                guard let last = page.last else { break }
                found += page
                guard found.count <= whole.count, last != marker else { break }
                marker = last
            }
            #expect(found == whole, "\(target) in pages of \(size)")
        }
        return pages
    }

    private func ids(_ target: String, _ collection: String, _ key: String) async throws -> [String] {
        let response = await api.respond(
            to: try IncomingRequest("GET", target, headers: Headers([("x-auth-token", token)] + headers)))
        let json = try JSONValue.parse(response.bytes ?? [])
        guard response.status == 200, let items = json[collection]?.arrayValue else {
            Issue.record("\(target): \(response.status) \(json)")
            return []
        }
        let findings = api.answerFindings(.get, String(target.prefix { $0 != "?" }), json)
        #expect(findings.isEmpty, "the OpenAPI document says something else: \(findings.prefix(5))")
        return items.map { item in
            let value = key.split(separator: ".").reduce(Optional(item)) { $0?[String($1)] }
            return value?.stringValue ?? value?.description ?? ""
        }
    }
}

extension RouteSweep {
    /// Reads every list that the service declares page by page, and returns the routes without correct paging: `GET PATH`.
    ///
    /// A list is a GET whose response has one array of objects besides links and the like. It must refuse `limit` with 400, or
    /// return one item at a time, each once, and end.
    ///
    /// - Parameters:
    ///   - tokens: callers of whom at least one can see the list.
    ///   - except: routes without paging, with the reason in the test.
    /// - Returns: the violations, and the number of lists.
    package func unpaged(_ tokens: [String], except: Set<String> = []) async throws -> (findings: [String], walked: Int) {
        var findings: [String] = []
        var walked = 0
        for route in routes where route.method == .get && route.action != nil && !except.contains(RouteSweep.name(route)) {
            for token in tokens {
                guard let (name, whole) = try await items(route, token, []), whole.count > 1 else { continue }
                walked += 1
                if let finding = try await walk(route, token, name, whole) { findings.append("\(RouteSweep.name(route)): \(finding)") }
                break
            }
        }
        return (findings, walked)
    }

    private func walk(_ route: Route, _ token: String, _ name: String, _ whole: [JSONValue]) async throws -> String? {
        guard let first = try await items(route, token, [("limit", "1")]) else { return nil }
        guard first.list.count == 1 else { return "limit=1 gives \(first.list.count) of \(whole.count)" }
        let keys = [
            "id", "uuid", "name", "port_id", "volumeId", "request_id", "project_id", "keypair.name", "member_id", "tenant_id", "network_id",
        ]
        func value(_ item: JSONValue, _ key: String) -> String? {
            let value = key.split(separator: ".").reduce(Optional(item)) { $0?[String($1)] }
            return value?.stringValue ?? value?.intValue.map { String($0) }
        }
        guard let key = keys.first(where: { key in Set(whole.compactMap { value($0, key) }).count == whole.count }) else {
            return "its items have no key"
        }
        var found: [String] = []
        var page = first.list
        while let last = page.last.flatMap({ value($0, key) }) {
            found.append(last)
            guard found.count <= whole.count else { break }
            guard let next = try await items(route, token, [("limit", "1"), ("marker", last)]) else { return "marker \(last) is refused" }
            page = next.list
        }
        return found == whole.compactMap { value($0, key) }
            ? nil : "the pages are \(found.prefix(8)), the list \(whole.prefix(8).map { value($0, key) ?? "" })"
    }

    /// The list in a response; nil if there is none, or if the request was refused.
    private func items(_ route: Route, _ token: String, _ query: [(String, String)]) async throws -> (name: String, list: [JSONValue])? {
        var request = try request(route, token).request
        request.query = Query(query)
        let response = await api.respond(to: request)
        guard response.status == 200, let bytes = response.bytes, let object = try JSONValue.parse(bytes).objectValue else { return nil }
        let lists = object.members.filter { $0.value.arrayValue != nil && !$0.name.hasSuffix("links") }
        guard lists.count == 1, let list = lists[0].value.arrayValue, list.allSatisfy({ $0.objectValue != nil }) else { return nil }
        return (lists[0].name, list)
    }
}
