import ArgumentParser
import Client
import Kernel

/// Selects the cloud and the credentials, with the options of the other OpenStack clients, before or after the verb.
struct AccessOptions: ParsableArguments {
    @Option(help: ArgumentHelp("The cloud of clouds.yaml to use (or OS_CLOUD).", valueName: "name"))
    var osCloud: String?
    @Option(help: ArgumentHelp("Address of Identity.", valueName: "url", visibility: .hidden))
    var osAuthUrl: String?
    @Option(help: ArgumentHelp("Kind of credentials: password, token or v3applicationcredential.", visibility: .hidden))
    var osAuthType: String?
    @Option(help: ArgumentHelp("User name.", visibility: .hidden)) var osUsername: String?
    @Option(help: ArgumentHelp("User id.", visibility: .hidden)) var osUserId: String?
    @Option(help: ArgumentHelp("Password.", visibility: .hidden)) var osPassword: String?
    @Option(help: ArgumentHelp("The user's domain, by name.", visibility: .hidden)) var osUserDomainName: String?
    @Option(help: ArgumentHelp("The user's domain, by id.", visibility: .hidden)) var osUserDomainId: String?
    @Option(help: ArgumentHelp("Work in another project, by name.", valueName: "name")) var osProjectName: String?
    @Option(help: ArgumentHelp("Work in another project, by id.", valueName: "id", visibility: .hidden)) var osProjectId: String?
    @Option(help: ArgumentHelp("The project's domain, by name.", visibility: .hidden)) var osProjectDomainName: String?
    @Option(help: ArgumentHelp("The project's domain, by id.", visibility: .hidden)) var osProjectDomainId: String?
    @Option(help: ArgumentHelp("Scope to a domain, by name.", visibility: .hidden)) var osDomainName: String?
    @Option(help: ArgumentHelp("Scope to a domain, by id.", visibility: .hidden)) var osDomainId: String?
    @Option(help: ArgumentHelp("Scope to the whole system: all.", visibility: .hidden)) var osSystemScope: String?
    @Option(help: ArgumentHelp("A token instead of a password.", visibility: .hidden)) var osToken: String?
    @Option(help: ArgumentHelp("Application credential, by id.", visibility: .hidden)) var osApplicationCredentialId: String?
    @Option(help: ArgumentHelp("Application credential, by name.", visibility: .hidden)) var osApplicationCredentialName: String?
    @Option(help: ArgumentHelp("Its secret.", visibility: .hidden)) var osApplicationCredentialSecret: String?
    @Option(help: ArgumentHelp("The region whose endpoints are used.", valueName: "region")) var osRegionName: String?
    @Option(help: ArgumentHelp("public, internal or admin endpoints.", valueName: "interface", visibility: .hidden)) var osInterface:
        String?
    @Option(help: ArgumentHelp("PEM file with the certificates to trust.", visibility: .hidden)) var osCacert: String?
    @Flag(help: ArgumentHelp("Accept any server certificate.", visibility: .hidden)) var insecure = false
    @Flag(help: "Neither read nor write the token cache.") var noCache = false
    @Flag(help: "Show each request on standard error.") var debug = false

    /// The given values, under their names in clouds.yaml.
    var given: [String: String] {
        let all: [(String, String?)] = [
            ("auth_url", osAuthUrl), ("auth_type", osAuthType), ("username", osUsername), ("user_id", osUserId),
            ("password", osPassword), ("user_domain_name", osUserDomainName), ("user_domain_id", osUserDomainId),
            ("project_name", osProjectName), ("project_id", osProjectId), ("project_domain_name", osProjectDomainName),
            ("project_domain_id", osProjectDomainId), ("domain_name", osDomainName), ("domain_id", osDomainId),
            ("system_scope", osSystemScope), ("token", osToken), ("application_credential_id", osApplicationCredentialId),
            ("application_credential_name", osApplicationCredentialName),
            ("application_credential_secret", osApplicationCredentialSecret), ("region_name", osRegionName),
            ("interface", osInterface), ("cacert", osCacert), ("verify", insecure ? "false" : nil),
        ]
        return Dictionary(uniqueKeysWithValues: all.compactMap { name, value in value.map { (name, $0) } })
    }

    /// The cloud selected by these options, the environment and clouds.yaml.
    ///
    /// - Throws: `CommandFailure` naming the missing value and where to set it.
    func open() throws -> CloudAPI {
        let environment = Machine.environment
        let resolver = AccessResolver(cloud: osCloud, given: given, environment: environment, files: .standard(environment))
        let access = try resolver.resolve()
        let cache = noCache ? nil : TokenFile(access.configuration, environment: environment)
        let shows = debug
        let client = RESTClient(
            access.configuration, cache: cache,
            onExchange: { exchange in
                guard shows else { return }
                let spent = Int(exchange.duration.inSeconds * 1000)
                let answer = exchange.status.map(String.init) ?? "no answer"
                let request = exchange.requestID.map { " " + $0 } ?? ""
                Machine.write(to: 2, "\(exchange.method.rawValue) \(exchange.url) → \(answer) in \(spent) ms\(request)\n")
            })
        return CloudAPI(client: client, source: access.source, isDebugging: debug)
    }
}
