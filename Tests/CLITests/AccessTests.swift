import Client
import JSON
import Kernel
import ServiceCatalog
import Testing

@testable import osctl

@Suite struct AccessTests {
    static let two = """
        clouds:
          admin:
            auth:
              auth_url: http://a.example:5000/v3
              username: root
              password: 0123
              project_name: ops
              user_domain_name: Default
            region_name: RegionOne
            interface: internal
            compute_endpoint_override: http://b.example:8774/v2.1
            verify: false
          demo:
            auth: {auth_url: "http://a.example:5000/v3", username: demo, project_name: demo, project_domain_id: d2}
        """

    func resolver(
        cloud: String? = nil, given: [String: String] = [:], environment: [String: String] = [:],
        files: [String: String] = ["clouds.yaml": AccessTests.two]
    ) -> AccessResolver {
        AccessResolver(
            cloud: cloud, given: given, environment: environment,
            files: ConfigurationFiles(directories: [".", "/home/me/.config/openstack", "/etc/openstack"]) { files[$0] })
    }

    func password(_ configuration: CloudConfiguration) -> String? {
        if case .password(_, let password) = configuration.credentials { password.exposed } else { nil }
    }

    @Test func aCloudIsReadCompletely() throws {
        let cloud = try resolver(cloud: "admin").resolve().configuration
        #expect(cloud.authURL == "http://a.example:5000/v3")
        #expect(password(cloud) == "0123")
        #expect(cloud.scope == .project(.name("ops", domain: .id("default"))))
        #expect(cloud.region == "RegionOne")
        #expect(cloud.interface == .internal)
        #expect(cloud.endpoints == [.compute: "http://b.example:8774/v2.1"])
        #expect(!cloud.verifiesCertificates)
        guard case .password(.name("root", domain: .name("Default")), _) = cloud.credentials else {
            Issue.record("\(cloud.credentials)")
            return
        }
    }

    @Test("S22: a server's certificate is verified unless the file says `verify: false`") func s22CertificatesAreVerified() throws {
        for (text, verified) in [
            ("", true), ("verify: true", true), ("verify: false", false), ("verify: maybe", true), ("verify: \"\"", true),
        ] {
            let file =
                "clouds: {c: {\(text.isEmpty ? "" : text + ", ")auth: {auth_url: \"https://a.example/v3\", username: u, password: p, project_name: x, user_domain_id: default, project_domain_id: default}}}"
            let cloud = try resolver(cloud: "c", files: ["clouds.yaml": file]).resolve().configuration
            #expect(cloud.verifiesCertificates == verified, "\(text)")
        }
    }

    @Test func secretsComeFromTheirOwnFile() throws {
        let files = ["clouds.yaml": AccessTests.two, "/etc/openstack/secure.yaml": "clouds: {demo: {auth: {password: hidden}}}"]
        let cloud = try resolver(cloud: "demo", files: files).resolve().configuration
        #expect(password(cloud) == "hidden")
        #expect(cloud.scope == .project(.name("demo", domain: .id("d2"))))
    }

    @Test func optionsGoBeforeTheFileAndThatBeforeTheEnvironment() throws {
        let environment = ["OS_CLOUD": "demo", "OS_PASSWORD": "from-env", "OS_USERNAME": "other"]
        let cloud = try resolver(given: ["project_name": "p9"], environment: environment).resolve().configuration
        #expect(password(cloud) == "from-env")
        #expect(cloud.scope == .project(.name("p9", domain: .id("d2"))))
        guard case .password(.name("demo", _), _) = cloud.credentials else {
            Issue.record("\(cloud.credentials)")
            return
        }
    }

    @Test func theOnlyCloudIsTaken() throws {
        let one = "clouds: {only: {auth: {auth_url: 'http://x', username: u, password: p, project_name: p}}}"
        #expect(try resolver(files: ["/home/me/.config/openstack/clouds.yaml": one]).resolve().configuration.name == "only")
    }

    @Test func severalCloudsNeedAChoice() {
        let error = #expect(throws: CommandFailure.self) { try resolver().resolve() }
        #expect(error?.description == "clouds.yaml has several clouds: admin, demo.\nChoose with --os-cloud or OS_CLOUD.")
    }

    @Test func anUnknownCloudNamesTheKnown() {
        let error = #expect(throws: CommandFailure.self) { try resolver(cloud: "x").resolve() }
        #expect(error?.message == "There is no cloud x in clouds.yaml; it has: admin, demo.")
    }

    @Test func variablesAloneAreEnough() throws {
        let environment = [
            "OS_AUTH_URL": "http://e:5000", "OS_USERNAME": "u", "OS_PASSWORD": "p", "OS_PROJECT_NAME": "x", "OS_REGION_NAME": "R2",
            "OS_CACERT": "/ca.pem",
        ]
        let cloud = try resolver(environment: environment).resolve().configuration
        #expect(cloud.name == "environment")
        #expect(cloud.authURL == "http://e:5000")
        #expect(cloud.region == "R2")
        #expect(cloud.certificateFile == "/ca.pem")
    }

    @Test func missingConfigurationHasAHint() {
        let error = #expect(throws: CommandFailure.self) { try resolver(files: [:]).resolve() }
        #expect(error?.message.hasPrefix("There is no clouds.yaml (looked for ./clouds.yaml, ") == true)
        #expect(error?.hint?.contains("OS_CLIENT_CONFIG_FILE") == true)
    }

    @Test func aNamedFileMustExist() {
        let error = #expect(throws: CommandFailure.self) { try resolver(environment: ["OS_CLIENT_CONFIG_FILE": "/no"]).resolve() }
        #expect(error?.message == "The file of OS_CLIENT_CONFIG_FILE cannot be read: /no")
    }

    @Test(arguments: [
        ("clouds: {x: {auth: {username: u, password: p}}}", "No address of Identity (auth_url) for cloud x of clouds.yaml."),
        ("clouds: {x: {auth: {auth_url: 'http://x', password: p}}}", "No username for cloud x of clouds.yaml."),
        ("clouds: {x: {auth: {auth_url: 'http://x', username: u}}}", "No password for cloud x of clouds.yaml."),
        (
            "clouds: {x: {auth_type: v3kerberos, auth: {auth_url: 'http://x'}}}",
            "The auth_type v3kerberos of cloud x of clouds.yaml is not supported."
        ),
        (
            "clouds: {x: {interface: odd, auth: {auth_url: 'http://x', username: u, password: p}}}",
            "Invalid interface 'odd'. It must be public, internal or admin."
        ),
        ("clouds: {}", "clouds.yaml contains no clouds."),
        ("a: 1", "clouds.yaml contains no clouds."),
    ]) func incompleteConfigurationIsRefused(text: String, message: String) {
        let error = #expect(throws: CommandFailure.self) { try resolver(files: ["clouds.yaml": text]).resolve() }
        #expect(error?.message == message)
    }

    @Test func brokenYAMLNamesFileAndPlace() {
        let error = #expect(throws: CommandFailure.self) { try resolver(files: ["clouds.yaml": "clouds:\n\tx: 1"]).resolve() }
        #expect(error?.message.hasPrefix("clouds.yaml is not valid YAML: ") == true)
        #expect(error?.message.contains("2:") == true)
    }

    @Test func applicationCredentialsBringTheirProject() throws {
        let text = """
            clouds:
              x:
                auth_type: v3applicationcredential
                auth: {auth_url: http://x, application_credential_id: i, application_credential_secret: s, project_name: ignored}
            """
        let cloud = try resolver(files: ["clouds.yaml": text]).resolve().configuration
        guard case .applicationCredential("i", let secret) = cloud.credentials else {
            Issue.record("\(cloud.credentials)")
            return
        }
        #expect(secret.exposed == "s")
        #expect(cloud.scope == .implied)
    }

    @Test func systemAndDomainScope() throws {
        #expect(try resolver(cloud: "admin", given: ["system_scope": "all"]).resolve().configuration.scope == .system)
        let text = "clouds: {x: {auth: {auth_url: 'http://x', username: u, password: p, domain_name: d}}}"
        #expect(try resolver(files: ["clouds.yaml": text]).resolve().configuration.scope == .domain(.name("d")))
    }

    @Test func anchorsAreFollowed() throws {
        let text = """
            base: &base {auth_url: http://x, username: u, password: p}
            clouds:
              x:
                auth:
                  <<: *base
                  project_name: p
            """
        // The merge key is YAML 1.1's; what it brings in is read, and unknown names do no harm.
        #expect(throws: CommandFailure.self) { try resolver(files: ["clouds.yaml": text]).resolve() }
        let plain = "base: &base {auth_url: 'http://x', username: u, password: p}\nclouds: {x: {auth: *base}}"
        #expect(try resolver(files: ["clouds.yaml": plain]).resolve().configuration.authURL == "http://x")
    }

    @Test func kindsOfTokensHaveKeysOfTheirOwn() throws {
        let admin = try resolver(cloud: "admin").resolve().configuration
        let other = try resolver(cloud: "admin", given: ["project_name": "p9"]).resolve().configuration
        #expect(TokenFile.key(admin) != TokenFile.key(other))
        #expect(!TokenFile.key(admin).contains("0123"))
        #expect(TokenFile.key(admin) == TokenFile.key(try resolver(cloud: "admin").resolve().configuration))
    }
}
