import Client
import JSON
import Kernel
import ServiceCatalog

/// Resolves the cloud. Options override clouds.yaml, which overrides OS_* variables.
struct AccessResolver {
    /// From `--os-cloud`.
    let cloud: String?
    /// Values of the other options, under their names in clouds.yaml.
    let given: [String: String]
    let environment: [String: String]
    let files: ConfigurationFiles

    struct Access {
        let configuration: CloudConfiguration
        /// The source of the values, for messages.
        let source: String
    }

    private struct Entry {
        let name: String
        let value: JSONValue
        let path: String
    }

    /// - Throws: `CommandFailure`.
    func resolve() throws -> Access {
        let entry = try entry()
        let source = entry.map { "cloud \($0.name) of \($0.path)" } ?? "the OS_ variables"
        let values = Values(given: given, entry: entry?.value ?? .null, environment: environment)
        guard let address = values["auth_url"] else {
            throw CommandFailure(
                "No address of Identity (auth_url) for \(source).", hint: "Set auth.auth_url in clouds.yaml, or OS_AUTH_URL.")
        }
        var configuration = CloudConfiguration(
            name: entry?.name ?? "environment", authURL: address, credentials: try credentials(values, source),
            scope: try scope(values), region: values["region_name"] ?? values.firstRegion,
            endpoints: endpoints(entry?.value ?? .null))
        if let name = values["interface"] ?? values["endpoint_type"] {
            guard let interface = CloudConfiguration.Interface(rawValue: name.replacing("URL", with: "")) else {
                throw CommandFailure("Invalid interface '\(name)'. It must be public, internal or admin.")
            }
            configuration.interface = interface
        }
        configuration.verifiesCertificates = !["false", "no", "0", "off"].contains((values["verify"] ?? "true").lowercased())
        configuration.certificateFile = values["cacert"]
        return Access(configuration: configuration, source: source)
    }

    // MARK: clouds.yaml

    private func entry() throws -> Entry? {
        let name = cloud ?? environment["OS_CLOUD"].flatMap { $0.isEmpty ? nil : $0 }
        let isEnvironment = given["auth_url"] != nil || environment["OS_AUTH_URL"]?.isEmpty == false
        if name == nil, isEnvironment { return nil }
        guard let (path, document) = try document() else {
            let looked = files.directories.map { $0 == "." ? "./clouds.yaml" : $0 + "/clouds.yaml" }.joined(separator: ", ")
            throw CommandFailure(
                "There is no clouds.yaml (looked for \(looked)) and no OS_AUTH_URL.",
                hint: "A cloud on this machine writes one to its state directory: export OS_CLIENT_CONFIG_FILE=$PWD/.state/clouds.yaml")
        }
        guard let clouds = document["clouds"]?.objectValue, !clouds.isEmpty else {
            throw CommandFailure(
                "\(path) contains no clouds.", hint: "It needs an entry under `clouds:` with auth_url, username, password and project_name."
            )
        }
        let names = clouds.names.joined(separator: ", ")
        if let name {
            guard let value = clouds[name] else {
                throw CommandFailure(
                    "There is no cloud \(name) in \(path); it has: \(names).", hint: "Choose with --os-cloud or OS_CLOUD.")
            }
            return Entry(name: name, value: value, path: path)
        }
        guard clouds.count == 1, let only = clouds.members.first else {
            throw CommandFailure("\(path) has several clouds: \(names).", hint: "Choose with --os-cloud or OS_CLOUD.")
        }
        return Entry(name: only.name, value: only.value, path: path)
    }

    private func document() throws -> (path: String, document: JSONValue)? {
        let main: (path: String, text: String)
        if let path = environment["OS_CLIENT_CONFIG_FILE"], !path.isEmpty {
            guard let text = files.read(path) else {
                throw CommandFailure("The file of OS_CLIENT_CONFIG_FILE cannot be read: \(path)")
            }
            main = (path, text)
        } else {
            guard let found = files.first(["clouds.yaml", "clouds.yml", "clouds.json"]) else { return nil }
            main = found
        }
        let document = try CloudsFile.parse(main.text, path: main.path)
        let secure: (path: String, text: String)?
        if let path = environment["OS_CLIENT_SECURE_FILE"], !path.isEmpty {
            secure = files.read(path).map { (path, $0) }
        } else {
            secure = files.first(["secure.yaml", "secure.yml", "secure.json"])
        }
        guard let secure else { return (main.path, document) }
        return (main.path, CloudsFile.merge(document, try CloudsFile.parse(secure.text, path: secure.path)))
    }

    private func endpoints(_ entry: JSONValue) -> [CloudService: String] {
        var endpoints: [CloudService: String] = [:]
        for member in entry.objectValue?.members ?? [] where member.name.hasSuffix("_endpoint_override") {
            guard let service = CloudService(name: String(member.name.dropLast("_endpoint_override".count))) else { continue }
            endpoints[service] = member.value.stringValue
        }
        return endpoints
    }

    // MARK: Credentials

    private func credentials(_ values: Values, _ source: String) throws -> CloudCredentials {
        let type = (values["auth_type"] ?? "").replacing("v3", with: "").replacing("_", with: "")
        let secret = values["application_credential_secret"]
        if type == "applicationcredential" || type.isEmpty && secret != nil {
            guard let secret else { throw missing("application_credential_secret", source) }
            if let id = values["application_credential_id"] { return .applicationCredential(id: id, secret: Secret(secret)) }
            guard let name = values["application_credential_name"] else { throw missing("application_credential_id", source) }
            return .namedApplicationCredential(name: name, user: try user(values, source), secret: Secret(secret))
        }
        if type == "token" || type.isEmpty && values["token"] != nil {
            guard let token = values["token"] else { throw missing("token", source) }
            return .token(Secret(token))
        }
        guard type.isEmpty || type == "password" else {
            throw CommandFailure(
                "The auth_type \(values["auth_type"] ?? "") of \(source) is not supported.",
                hint: "Use password, token or v3applicationcredential.")
        }
        let user = try user(values, source)
        guard let password = values["password"] else { throw missing("password", source) }
        return .password(user: user, password: Secret(password))
    }

    private func missing(_ key: String, _ source: String) -> CommandFailure {
        CommandFailure("No \(key) for \(source).", hint: "Set auth.\(key) in clouds.yaml, or OS_\(key.uppercased()).")
    }

    private func user(_ values: Values, _ source: String) throws -> CloudCredentials.Named {
        if let id = values["user_id"] { return .id(id) }
        guard let name = values["username"] ?? values["user_name"] else { throw missing("username", source) }
        return .name(name, domain: domain(values, "user_domain"))
    }

    private func domain(_ values: Values, _ prefix: String) -> CloudCredentials.Domain {
        if let id = values[prefix + "_id"] { return .id(id) }
        if let name = values[prefix + "_name"] { return .name(name) }
        return .id(values["default_domain_id"] ?? values["default_domain"] ?? "default")
    }

    private func scope(_ values: Values) throws -> CloudScope {
        if values["application_credential_secret"] != nil { return .implied }
        if let system = values["system_scope"] {
            guard system == "all" else { throw CommandFailure("Invalid system scope '\(system)'. It must be `all`.") }
            return .system
        }
        if given["project_name"] == nil, let id = values["project_id"] ?? values["tenant_id"] { return .project(.id(id)) }
        if let name = values["project_name"] ?? values["tenant_name"] {
            return .project(.name(name, domain: domain(values, "project_domain")))
        }
        if let id = values["domain_id"] { return .domain(.id(id)) }
        if let name = values["domain_name"] { return .domain(.name(name)) }
        return .unscoped
    }

    /// Looks up one value at a time in all sources.
    private struct Values {
        let given: [String: String]
        let entry: JSONValue
        let environment: [String: String]

        subscript(_ name: String) -> String? {
            if let value = given[name] { return value }
            for value in [entry["auth"]?[name], entry[name]] {
                if let text = value?.stringValue, !text.isEmpty { return text }
            }
            return environment["OS_" + name.uppercased()].flatMap { $0.isEmpty ? nil : $0 }
        }

        var firstRegion: String? {
            guard let first = entry["regions"]?.arrayValue?.first else { return nil }
            return first.stringValue ?? first["name"]?.stringValue
        }
    }
}
