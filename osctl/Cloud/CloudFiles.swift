import JSON
import Kernel
import ServiceCatalog

/// Writes the files for a cloud's services and users.
struct CloudFiles: Sendable {
    let layout: CloudLayout
    let secrets: CloudSecrets
    static let region = "RegionOne"
    static let host = "127.0.0.1"

    func write() throws {
        for host in layout.hosts {
            try Machine.makeDirectory(host.directory)
            try Machine.write(host.configuration, configuration(host), mode: 0o600)
        }
        try Machine.makeDirectory(layout.controllerCertificates)
        try Machine.write(layout.clouds, clouds, mode: 0o600)
    }

    /// The root URL of a service, from this machine.
    static func url(_ service: CloudService, _ layout: CloudLayout) -> String { "http://\(host):\(layout.port(service.port))" }

    static func authURL(_ layout: CloudLayout) -> String { url(.identity, layout) + CloudService.identity.versionPath }

    /// One file serves all executables of a host; other hosts reach the first host under another address.
    private func configuration(_ host: HostLayout) -> String {
        var yaml = YAMLText(
            "Written by `osctl cloud up` at each start; changes are lost. Overrides: WOLKE_<SECTION>_<KEY> in its environment.")
        yaml.section("database", [("url", .text(layout.databaseURL)), ("connections", .number(8))])
        yaml.section(
            "messaging", [("url", .text("amqp://wolke:\(secrets.rabbitmq)@\(host.machineAddress):\(layout.amqpPort)/%2F"))])
        yaml.section(
            "tokens", [("public_keys_file", .text(secrets.publicKeysFile)), ("signing_key_file", .text(secrets.signingKeyFile))])
        yaml.section("identity", [("credential_keys_file", .text(secrets.credentialKeysFile))])
        // A cloud without machines rehearses with fake ones.
        yaml.section(
            "bare_metal",
            [
                ("credential_keys_file", .text(secrets.credentialKeysFile)),
                ("certificates_directory", .text(layout.controllerCertificates)),
                ("hardware_types", .list(["redfish", "ipmi", "fake-hardware"])),
            ])
        yaml.section("service_user", [("password_file", .text(secrets.servicePasswordFile))])
        var endpoints: [(String, YAMLText.Value)] = [
            ("bind", .text(layout.hostCount == 1 ? CloudFiles.host : "0.0.0.0")), ("public_host", .text(host.machineAddress.description)),
            ("region", .text(CloudFiles.region)),
        ]
        endpoints.append(("operator_bind", .text(host.address.description)))
        for service in CloudService.processes {
            endpoints.append(("\(service.section)_port", .number(layout.port(service.port))))
            endpoints.append(("\(service.section)_operator_port", .number(layout.port(service.operatorPort))))
        }
        endpoints.append(("agent_port", .number(layout.port(HostAgent.compute.port))))
        yaml.section("endpoints", endpoints)
        yaml.section("block_storage", [("directory", .text(layout.state + "/volumes"))])
        yaml.section("image", [("directory", .text(layout.state + "/image-store"))])
        yaml.section(
            "network",
            [
                ("ovn_nb", .text("unix:" + layout.northboundSocket)), ("ovn_sb", .text("unix:" + layout.southboundSocket)),
                ("physical_networks", .list([CloudLayout.physicalNetwork])),
            ])
        yaml.section(
            "agent",
            [
                ("host", .text(host.name)), ("state_directory", .text(host.agent)), ("libvirt_uri", .text(host.libvirtURI)),
                ("tpm_directory", .text(host.libvirt + "/lib/swtpm")),
                ("ovsdb", .text("unix:" + host.vswitchSocket)), ("integration_bridge", .text(layout.integrationBridge)),
                ("migration_uri", .text(host.libvirtURI.replacing("qemu:///", with: "qemu+unix:///"))),
                ("migration_address", .text(host.migrationAddress.description)),
            ])
        return yaml.text
    }

    private var clouds: String {
        var yaml = YAMLText("For the openstack client, openstacksdk and osctl: export OS_CLIENT_CONFIG_FILE=\(layout.clouds)")
        yaml.line("clouds:")
        for (cloud, user, project, password) in [
            ("wolke-admin", "admin", "admin", secrets.admin), ("wolke-demo", "demo", "demo", secrets.demo),
        ] {
            yaml.line("  \(cloud):")
            yaml.line("    auth:")
            let values = [
                ("auth_url", CloudFiles.authURL(layout)), ("username", user), ("password", password), ("project_name", project),
                ("user_domain_id", "default"), ("project_domain_id", "default"),
            ]
            for (name, value) in values { yaml.line("      \(name): \(YAMLText.quoted(value))") }
            yaml.line("    region_name: \(YAMLText.quoted(CloudFiles.region))")
            yaml.line("    interface: public")
            yaml.line("    identity_api_version: 3")
        }
        return yaml.text
    }
}

/// Builds YAML with sections of plain values; every text is quoted.
struct YAMLText {
    enum Value {
        case text(String)
        case number(Int)
        case flag(Bool)
        case list([String])
    }

    private(set) var text: String

    init(_ comment: String) { text = "# \(comment)\n" }

    mutating func line(_ line: String) { text += line + "\n" }

    mutating func section(_ name: String, _ values: [(String, Value)]) {
        line("\(name):")
        for (key, value) in values {
            switch value {
            case .text(let value): line("  \(key): \(YAMLText.quoted(value))")
            case .number(let value): line("  \(key): \(value)")
            case .flag(let value): line("  \(key): \(value)")
            case .list(let values): line("  \(key): [\(values.map(YAMLText.quoted).joined(separator: ", "))]")
            }
        }
    }

    /// A double-quoted scalar; JSON's escapes are valid in YAML.
    static func quoted(_ value: String) -> String { JSONValue.string(value).description }
}
