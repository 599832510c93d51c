import Client
import JSON
import Kernel

/// The signed-on client, with functions for all verbs.
struct CloudAPI: Sendable {
    let client: RESTClient
    /// The source of the cloud's values, for messages.
    let source: String
    var isDebugging = false

    // MARK: Finding

    /// Whether a text has the form of an id, so that it is tried as one.
    static func looksLikeID(_ text: String) -> Bool {
        if UUID128(text) != nil { return true }
        return text.utf8.count == 32 && text.utf8.allSatisfy { Hexadecimal.value(of: $0) != nil }
    }

    func list(_ kind: Kind, query: [(String, String)] = [], limit: Int? = nil) async throws -> [JSONValue] {
        try await client.list(
            service: kind.service, path: kind.listPath ?? kind.path, key: kind.collection, query: kind.listQuery + query,
            microversion: kind.microversion, limit: limit)
    }

    func get(_ kind: Kind, id: String) async throws -> JSONValue {
        try kind.object(try await client.get(kind.service, kind.path(id: id), microversion: kind.microversion))
    }

    /// The object with this id or name.
    ///
    /// - Throws: `CommandFailure` if there is none, or if several have the name.
    func find(_ kind: Kind, _ text: String) async throws -> JSONValue {
        if let object = try await findByID(kind, text) { return object }
        let matches: [JSONValue]
        switch kind.naming {
        case .none, .byPath: matches = []
        case .filtered:
            // Some services treat the filter as a pattern, so it is only sent if the name contains no pattern characters.
            let isPlain = text.utf8.allSatisfy {
                $0 > 127 || (48...57).contains($0) || (65...90).contains($0 & 0xdf) || $0 == 45 || $0 == 95 || $0 == 32
            }
            let query = isPlain ? [(kind.nameField, text)] : []
            matches = try await list(kind, query: query).filter { $0[kind.nameField]?.stringValue == text }
        case .listed:
            let all = try await list(kind)
            let same = all.filter { $0[kind.idField]?.stringValue == text }
            matches = same.isEmpty ? all.filter { $0[kind.nameField]?.stringValue == text } : same
        }
        if matches.count == 1, let match = matches.first { return match }
        guard matches.isEmpty else {
            let ids = try matches.prefix(10).map { try kind.id($0) }.joined(separator: ", ")
            throw CommandFailure("\(matches.count) \(kind.plural) have the name \(text): \(ids).", hint: "Use the id instead of the name.")
        }
        throw CommandFailure("There is no \(kind.noun) \(text).", hint: "See: \(kind.listCommand)")
    }

    private func findByID(_ kind: Kind, _ text: String) async throws -> JSONValue? {
        switch kind.naming {
        case .listed where !CloudAPI.looksLikeID(text): return nil
        case .filtered where !CloudAPI.looksLikeID(text): return nil
        default: break
        }
        do {
            return try await get(kind, id: text)
        } catch let error as ResourceError where error.code == .notFound && error.type?.hasPrefix("client.") != true {
            return nil
        }
    }

    /// The id for a name. An id is returned unchanged; the service reports if it does not exist.
    func id(_ kind: Kind, _ text: String) async throws -> String {
        if CloudAPI.looksLikeID(text) || kind.naming == .none || kind.naming == .byPath { return text }
        return try kind.id(try await find(kind, text))
    }

    func ids(_ kind: Kind, _ texts: [String]) async throws -> [String] {
        var ids: [String] = []
        for text in texts { ids.append(try await id(kind, text)) }
        return ids
    }

    /// The project of the token.
    ///
    /// - Throws: `CommandFailure` if the token has none.
    func project() async throws -> String {
        guard let project = try await client.token().projectID else {
            throw CommandFailure(
                "The token of \(source) has no project.", hint: "Set project_name, or name the project with --os-project-name.")
        }
        return project
    }

    // MARK: Changing

    func create(_ kind: Kind, _ body: JSONValue) async throws -> JSONValue {
        let key = client.ambient.newUUID().description
        let answer = try await client.post(kind.service, kind.path, body, microversion: kind.microversion, idempotencyKey: key)
        return try kind.object(answer)
    }

    func update(_ kind: Kind, id: String, method: RESTMethod, _ members: JSONObject) async throws -> JSONValue {
        let answer = try await client.request(
            service: kind.service, method: method, path: kind.path(id: id), body: kind.body(members), microversion: kind.microversion)
        return try kind.object(answer.json)
    }

    /// `POST /{path}/{id}/action`.
    @discardableResult
    func act(_ kind: Kind, id: String, _ body: JSONValue) async throws -> JSONValue {
        try await client.post(kind.service, kind.path(id: id) + "/action", body, microversion: kind.microversion)
    }
}
