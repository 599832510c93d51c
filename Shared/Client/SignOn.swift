import JSON
import Kernel

/// The body of `POST /v3/auth/tokens`.
enum SignOn {
    static func body(_ credentials: CloudCredentials, scope: CloudScope) -> JSONValue {
        var auth = JSONObject()
        auth["identity"] = identity(credentials)
        if let scope = self.scope(scope) { auth["scope"] = scope }
        return .object(["auth": .object(auth)])
    }

    private static func identity(_ credentials: CloudCredentials) -> JSONValue {
        switch credentials {
        case .password(let user, let password):
            var object = named(user)
            object["password"] = .string(password.exposed)
            return ["methods": ["password"], "password": ["user": .object(object)]]
        case .applicationCredential(let id, let secret):
            return [
                "methods": ["application_credential"],
                "application_credential": ["id": .string(id), "secret": .string(secret.exposed)],
            ]
        case .namedApplicationCredential(let name, let user, let secret):
            return [
                "methods": ["application_credential"],
                "application_credential": [
                    "name": .string(name), "secret": .string(secret.exposed), "user": .object(named(user)),
                ],
            ]
        case .token(let token):
            return ["methods": ["token"], "token": ["id": .string(token.exposed)]]
        }
    }

    private static func scope(_ scope: CloudScope) -> JSONValue? {
        switch scope {
        case .implied: nil
        case .unscoped: "unscoped"
        case .system: ["system": ["all": true]]
        case .project(let project): ["project": .object(named(project))]
        case .domain(let domain): ["domain": self.domain(domain)]
        }
    }

    private static func named(_ named: CloudCredentials.Named) -> JSONObject {
        switch named {
        case .id(let id): ["id": .string(id)]
        case .name(let name, let domain): ["name": .string(name), "domain": self.domain(domain)]
        }
    }

    private static func domain(_ domain: CloudCredentials.Domain) -> JSONValue {
        switch domain {
        case .id(let id): ["id": .string(id)]
        case .name(let name): ["name": .string(name)]
        }
    }
}
