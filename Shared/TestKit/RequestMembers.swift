package import Database
package import JSON
package import WebAPI

/// The members that a resource can be created or changed with. Each is shown by the resource afterwards, or is refused by name:
/// none is accepted and ignored.
///
///     let members = RequestMembers("volumes", "volume", seen: [.init("name", "n")], refused: [.init("group_id", "x")])
///     #expect(try await members.findings(cloud.api, cloud.database) { method, path, body in … } == [])
package struct RequestMembers: Sendable {
    /// A member of a creating request.
    package struct Member: Sendable {
        let name: String
        let value: JSONValue
        /// The name and value with which the created resource shows the member.
        let shown: (name: String, value: JSONValue)
        /// Further members that this one needs.
        let with: JSONObject
        /// Whether the value is in no audit record.
        let isSecret: Bool
        /// Whether the audit record has the member.
        let isRecorded: Bool

        /// - Parameters:
        ///   - shownAs: the member of the resource that shows it, if it has another name.
        ///   - showing: what it shows, if it is another value.
        ///   - isRecorded: false if the audit record says it in another way.
        package init(
            _ name: String, _ value: JSONValue, shownAs: String? = nil, showing: JSONValue? = nil, with: JSONObject = [:],
            isSecret: Bool = false, isRecorded: Bool = true
        ) {
            self.isSecret = isSecret
            self.isRecorded = isRecorded
            self.name = name
            self.value = value
            shown = (shownAs ?? name, showing ?? value)
            self.with = with
        }
    }

    package typealias Call = (
        _ method: String, _ path: String, _ body: JSONValue?
    ) async throws -> (status: Int, json: JSONValue)

    /// The path of the collection, as requests have it.
    let path: String
    /// The same path as the route declares it.
    let template: String
    /// The member that holds the resource in requests and responses; nil if it is not wrapped.
    let wrapper: String?
    /// The member with the resource's id.
    let idMember: String
    /// The members of every creating request.
    let base: JSONObject
    /// The method with which the resource is changed; nil for members of creating requests.
    let change: Method?
    let seen: [Member]
    let refused: [Member]
    /// Declared members that another test covers, with its name.
    let elsewhere: [String: String]
    /// Texts of refusals that do not name the member as the request does.
    let refusals: [String]

    package init(
        _ path: String, _ wrapper: String?, change: Method? = nil, template: String? = nil, idMember: String = "id",
        base: JSONObject = [:], seen: [Member], refused: [Member] = [],
        elsewhere: [String: String] = [:], refusals: [String] = []
    ) {
        self.path = path
        self.template = template ?? path
        self.wrapper = wrapper
        self.idMember = idMember
        self.base = base
        self.change = change
        self.seen = seen
        self.refused = refused
        self.elsewhere = elsewhere
        self.refusals = refusals
    }

    /// Creates or changes a resource with each member and looks at it. `#` in texts becomes a number of its own for each request.
    ///
    /// - Parameter database: for the audit records, which must have the written value; nil if the members are not part of them.
    /// - Returns: descriptions of members that are ignored, refused without their name, or declared by the route and not listed here.
    package func findings(_ api: API, _ database: Database?, _ call: Call) async throws -> [String] {
        var findings = undeclared(api)
        for (index, member) in seen.enumerated() {
            let (answer, id) = try await answer(to: member, index, call)
            guard (200..<300).contains(answer.status) else {
                findings.append("\(path) \(member.name): \(answer.status) \(answer.json)")
                continue
            }
            if let database { findings += try await recorded(member, index, database) }
            let created = unwrapped(answer.json)
            let shown = unwrapped(try await call("GET", "\(path)/\(id)", nil).json)
            let expected = RequestMembers.numbered(member.shown.value, index)
            if (shown?[member.shown.name] ?? created?[member.shown.name]) != expected {
                findings.append("\(path) \(member.name): shown as \(shown ?? .null)")
            }
            _ = try await call("DELETE", "\(path)/\(id)", nil)
        }
        for (index, member) in refused.enumerated() {
            let (answer, id) = try await answer(to: member, seen.count + index, call)
            if change != nil { _ = try await call("DELETE", "\(path)/\(id)", nil) }
            let isNamed = ([member.name] + refusals).contains { answer.json.description.contains($0) }
            if !(400...404).contains(answer.status) || !isNamed {
                findings.append("\(path) \(member.name) = \(member.value): \(answer.status) \(answer.json)")
            }
        }
        return findings
    }

    /// Compares the newest audit record with the member.
    private func recorded(_ member: Member, _ index: Int, _ database: Database) async throws -> [String] {
        let content = try await database.read { connection in
            try connection.query("SELECT content FROM audit_records ORDER BY id DESC LIMIT 1").first?.optionalJSON("content") ?? .null
        }
        let expected = RequestMembers.numbered(member.shown.value, index)
        if member.isSecret {
            return content.description.contains(expected.stringValue ?? "\(expected)")
                ? ["\(path) \(member.name): the audit record has the secret"] : []
        }
        let resource = wrapper.flatMap { content[$0] } ?? content
        return !member.isRecorded || resource[member.shown.name] == expected
            ? [] : ["\(path) \(member.name): the audit record has \(content)"]
    }

    /// The response to a request with the member, and the id of the resource.
    private func answer(
        to member: Member, _ index: Int, _ call: Call
    ) async throws -> (response: (status: Int, json: JSONValue), id: String) {
        guard let change else {
            let answer = try await call("POST", path, body(member, index))
            return (answer, id(of: answer.json))
        }
        let created = try await call("POST", path, wrapped(base, index))
        let id = id(of: created.json)
        guard !id.isEmpty else { return (created, id) }
        return (try await call(change.rawValue, "\(path)/\(id)", body(member, index)), id)
    }

    /// The id, which some resources have as a number; empty if there is none.
    private func id(of json: JSONValue) -> String {
        let id = unwrapped(json)?[idMember]
        return id?.stringValue ?? id?.intValue.map(String.init) ?? ""
    }

    private func unwrapped(_ json: JSONValue) -> JSONValue? { wrapper.map { json[$0] } ?? json }

    private func body(_ member: Member, _ index: Int) -> JSONValue {
        var object = change == nil ? base : [:]
        for part in member.with.members { object[part.name] = part.value }
        object[member.name] = member.value
        return wrapped(object, index)
    }

    private func wrapped(_ object: JSONObject, _ index: Int) -> JSONValue {
        let numbered = RequestMembers.numbered(.object(object), index)
        return wrapper.map { .object(JSONObject([($0, numbered)])) } ?? numbered
    }

    private static func numbered(_ value: JSONValue, _ index: Int) -> JSONValue {
        switch value {
        case .string(let text): .string(text.replacing("#", with: String(index)))
        case .object(let object): .object(JSONObject(object.members.map { ($0.name, numbered($0.value, index)) }))
        default: value
        }
    }

    /// The members that the route declares and that nothing here covers.
    private func undeclared(_ api: API) -> [String] {
        let known = Set((seen + refused).map(\.name) + (change == nil ? base.names : []) + elsewhere.keys)
        var found: Set<String> = []
        for route in api.resources.flatMap(\.routes) where route.method == change ?? .post && route.bodyKey == nil {
            let path = change == nil ? route.path : route.path.split(separator: "/").dropLast().map { "/" + $0 }.joined()
            guard path.hasSuffix(template) else { continue }
            guard case .json(let schema) = route.body else { continue }
            let properties = schema.properties
            let own = wrapper.map { name in properties.first { $0.name == name }?.schema.properties ?? [] } ?? properties
            found.formUnion(own.map(\.name))
        }
        return found.subtracting(known).sorted().map { "\(path) \($0): declared, and no test says what it does" }
    }
}

extension BodySchema {
    fileprivate var properties: [Property] {
        switch self {
        case .object(let properties, _): properties
        case .nullable(let inner): inner.properties
        default: []
        }
    }
}
