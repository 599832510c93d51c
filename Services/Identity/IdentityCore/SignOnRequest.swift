package import JSON
package import Kernel

/// A request of `POST /v3/auth/tokens`: user, methods and scope.
package struct SignOnRequest: Sendable {
    /// A domain by id or by name.
    package enum DomainReference: Sendable, Hashable {
        case id(String)
        case name(String)
    }

    /// A user or project: by id, or by name in a domain.
    package enum Reference: Sendable, Hashable {
        case id(String)
        case name(String, DomainReference)
    }

    /// A method of proving the user's identity.
    package enum Method: Sendable {
        case password(user: Reference, password: Secret<String>)
        case token(Secret<String>)
        /// A one-time password; only valid together with another method.
        case totp(user: Reference, code: Secret<String>)
        /// A credential by name also needs its user.
        case applicationCredential(id: String, secret: Secret<String>)
        case namedApplicationCredential(name: String, user: Reference, secret: Secret<String>)

        package var name: String {
            switch self {
            case .password: "password"
            case .token: "token"
            case .totp: "totp"
            case .applicationCredential, .namedApplicationCredential: "application_credential"
            }
        }
    }

    /// The requested scope of the token.
    package enum ScopeRequest: Sendable, Hashable {
        /// No `scope` in the request: the user's default project if there is one.
        case implied
        case unscoped
        case project(Reference)
        case domain(DomainReference)
        case system
    }

    package let methods: [Method]
    package let scope: ScopeRequest

    /// - Throws: 400 that names the field that is missing or malformed; 401 for a method that does not exist.
    package init(_ body: JSONValue) throws {
        let auth = try SignOnRequest.object(body["auth"], "auth")
        let identity = try SignOnRequest.object(auth["identity"], "auth.identity")
        guard let names = identity["methods"]?.arrayValue else {
            throw SignOnRequest.missing("auth.identity.methods", "array")
        }
        var methods: [Method] = []
        for (index, name) in names.enumerated() {
            guard let name = name.stringValue else { throw SignOnRequest.missing("auth.identity.methods[\(index)]", "string") }
            if methods.contains(where: { $0.name == name }) { continue }
            methods.append(try SignOnRequest.method(name, identity))
        }
        guard !methods.isEmpty else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute auth.identity.methods. Value: []. It must name at least one method.")
        }
        self.methods = methods
        scope = try SignOnRequest.scope(auth["scope"])
    }

    // MARK: methods

    private static func method(_ name: String, _ identity: JSONObject) throws -> Method {
        let path = "auth.identity.\(name)"
        switch name {
        case "password":
            let user = try object(try object(identity[name], path)["user"], path + ".user")
            return .password(
                user: try reference(user, path + ".user"),
                password: Secret(try text(user["password"], path + ".user.password", max: 4096)))
        case "token":
            return .token(Secret(try text(try object(identity[name], path)["id"], path + ".id", max: Limits.tokenBytesMax)))
        case "totp":
            let user = try object(try object(identity[name], path)["user"], path + ".user")
            return .totp(
                user: try reference(user, path + ".user"),
                code: Secret(try text(user["passcode"], path + ".user.passcode", max: 64)))
        case "application_credential":
            let credential = try object(identity[name], path)
            let secret = Secret(try text(credential["secret"], path + ".secret", max: 4096))
            if let id = credential["id"], !id.isNull {
                return .applicationCredential(id: try text(id, path + ".id"), secret: secret)
            }
            let user = try object(credential["user"], path + ".user")
            return .namedApplicationCredential(
                name: try text(credential["name"], path + ".name"), user: try reference(user, path + ".user"),
                secret: secret)
        default:
            throw ResourceError(.unauthorized, "Attempted to authenticate with an unsupported method: \(name.prefix(64))")
        }
    }

    // MARK: scope

    private static func scope(_ value: JSONValue?) throws -> ScopeRequest {
        guard let value, !value.isNull else { return .implied }
        if value.stringValue == "unscoped" { return .unscoped }
        let scope = try object(value, "auth.scope")
        let known = ["project", "domain", "system", "unscoped"]
        let given = scope.names.filter { known.contains($0) && scope[$0]?.isNull == false }
        guard given.count == 1, let kind = given.first else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute auth.scope. It must have exactly one of project, domain, system or unscoped.")
        }
        switch kind {
        case "project": return .project(try reference(try object(scope[kind], "auth.scope.project"), "auth.scope.project"))
        case "domain": return .domain(try domain(scope[kind], "auth.scope.domain"))
        case "system":
            guard try object(scope[kind], "auth.scope.system")["all"]?.boolValue == true else {
                throw ResourceError.badRequest(
                    "Invalid input for field/attribute auth.scope.system. It must be {\"all\": true}.")
            }
            return .system
        default: return .unscoped
        }
    }

    // MARK: parts

    private static func reference(_ object: JSONObject, _ path: String) throws -> Reference {
        if let id = object["id"], !id.isNull { return .id(try text(id, path + ".id")) }
        guard let name = object["name"], !name.isNull else {
            throw ResourceError.badRequest(
                """
                Expecting to find id or name in \(path). The server could not comply with the request since it is \
                either malformed or otherwise incorrect.
                """
            )
        }
        return .name(try text(name, path + ".name"), try domain(object["domain"], path + ".domain"))
    }

    private static func domain(_ value: JSONValue?, _ path: String) throws -> DomainReference {
        let object = try object(value, path)
        if let id = object["id"], !id.isNull { return .id(try text(id, path + ".id")) }
        if let name = object["name"], !name.isNull { return .name(try text(name, path + ".name")) }
        throw ResourceError.badRequest("Expecting to find id or name in \(path).")
    }

    private static func object(_ value: JSONValue?, _ path: String) throws -> JSONObject {
        guard let object = value?.objectValue else { throw missing(path, "object") }
        return object
    }

    private static func text(_ value: JSONValue?, _ path: String, max: Int = 255) throws -> String {
        guard let text = value?.stringValue else { throw missing(path, "string") }
        guard text.utf8.count <= max, !text.utf8.contains(0) else {
            throw ResourceError.badRequest(
                "Invalid input for field/attribute \(path). It has more than \(max) bytes or contains NUL.")
        }
        return text
    }

    private static func missing(_ path: String, _ kind: String) -> ResourceError {
        .badRequest("Invalid input for field/attribute \(path): '\(path)' is a required property of type '\(kind)'.")
    }
}
