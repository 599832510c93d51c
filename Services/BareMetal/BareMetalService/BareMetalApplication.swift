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
            hardwareTypes: try HardwareType.enabled(settings.list("bare_metal.hardware_types")), powerSync: interval)
        try await process.run { surroundings in try BareMetalModule.make(surroundings, options) }
    }
}
