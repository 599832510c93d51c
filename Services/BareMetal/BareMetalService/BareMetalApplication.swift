import BareMetalCore
import Cryptography
import Kernel
package import ServiceKit
package import Settings

/// `wolke-bare-metal`.
package struct BareMetalApplication: Sendable {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `bare_metal`.
    package static let settingsKeys: [SettingsKey] = [
        .string(
            "credential_keys_file", default: nil,
            """
            File with the keys for encrypting the credentials of controllers and config drives, one per line: key id and base64 of 32 \
            bytes; the first one encrypts. Without it, nodes cannot have credentials or config drives.
            """),
        .string(
            "certificates_directory", default: nil,
            """
            Directory with certificate authorities (PEM) of controllers. Nodes name a file of it in `redfish_verify_ca`; without it, they \
            can only use the machine's authorities.
            """),
        .list(
            "hardware_types", default: ["redfish", "ipmi"],
            "The drivers that nodes can have: `redfish`, `ipmi`, and `fake-hardware` for rehearsals without machines."),
        .string(
            "deploy_iso", default: nil,
            """
            URL of the bootable image with the deploy ramdisk, for nodes without `driver_info/deploy_iso`. Controllers fetch it.
            """),
        .list(
            "agent_networks", default: [],
            """
            Networks in which the agents of deploy ramdisks may be (`192.0.2.0/24`); by default everywhere but this machine and \
            link-local addresses.
            """),
        .boolean("agent_tls_required", default: true, "Whether the command API of agents must use TLS."),
        .duration(
            "agent_heartbeat_timeout", default: "5m", "How long an agent may be silent, from 10s to 1h. Agents are told it."),
        .duration(
            "deploy_callback_timeout", default: "30m", "How long a machine may take from its start to the call of its agent, 10s to 1d."),
        .duration("power_sync_interval", default: "60s", "The interval at which the power state of all nodes is polled; at least 1s."),
    ]

    /// Runs until the process is stopped.
    package func run() async throws {
        let settings = process.settings
        let interval = settings.duration("bare_metal.power_sync_interval")
        guard interval >= .seconds(1) else {
            throw ResourceError.badRequest("bare_metal.power_sync_interval is \(interval); it must be at least 1s.")
        }
        let options = BareMetalOptions(
            credentialKeys: try settings.optionalString("bare_metal.credential_keys_file").map {
                try CredentialKeys(file: try SettingsFile.text($0))
            },
            certificatesDirectory: settings.optionalString("bare_metal.certificates_directory"),
            hardwareTypes: try HardwareType.enabled(settings.list("bare_metal.hardware_types")), powerSync: interval,
            agents: try AgentRules(
                networks: settings.list("bare_metal.agent_networks"), requiresTLS: settings.boolean("bare_metal.agent_tls_required"),
                heartbeatTimeout: settings.duration("bare_metal.agent_heartbeat_timeout"),
                callbackTimeout: settings.duration("bare_metal.deploy_callback_timeout")),
            deployISO: try settings.optionalString("bare_metal.deploy_iso").map { url in
                try NodeRules.requireImageURL(url, "bare_metal.deploy_iso")
                return url
            })
        try await process.run { surroundings in try BareMetalModule.make(surroundings, options) }
    }
}
