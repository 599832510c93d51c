import Authorization
import Cryptography
import IdentityCore
import JSON
import Kernel
import Logging
import Schema
package import ServiceKit
package import Settings

/// The process `wolke-identity`: serves the API, with `bootstrap --file JSON` brings the database to a plan, or with `recover --file JSON`
/// restores access for the plan's users.
package struct IdentityApplication {
    private let process: ServiceProcess

    package init(_ process: ServiceProcess) { self.process = process }

    /// The keys of the section `identity`.
    package static let settingsKeys: [SettingsKey] = [
        .integer(
            "password_cost", default: 5, in: 1...11,
            "Cost of a password hash (yescrypt); each step doubles time and memory. 5 needs 16 MiB."),
        .integer("password_threads", default: 0, in: 0...256, "Number of concurrent password hashes; 0 for one per core."),
        .integer("password_length_min", default: 1, in: 1...4096, "Minimum length of a new password, in characters."),
        .integer("lockout_attempts", default: 0, in: 0...1000, "Wrong passwords in a row that lock a user; 0 for never."),
        .string(
            "credential_keys_file", default: nil,
            """
            File with the keys for encrypting `/v3/credentials`, one per line: key id and base64 of 32 bytes; the \
            first one encrypts. Without it, credentials are not available.
            """
        ),
        .duration("lockout_duration", default: "30m", "How long a user stays locked."),
    ]

    /// Runs the command line: serves until the process is stopped, or bootstraps.
    package func run() async throws {
        switch process.arguments.first {
        case nil: try await serve()
        case "bootstrap", "recover": try await bootstrap(process.arguments)
        case let word?:
            throw ResourceError.badRequest("unknown command \"\(word)\"; known: bootstrap --file JSON, recover --file JSON")
        }
    }

    private var hasher: PasswordHasher {
        let threads = process.settings.integer("identity.password_threads")
        return PasswordHasher(
            cost: process.settings.integer("identity.password_cost"), threads: threads == 0 ? nil : threads)
    }

    private func bootstrap(_ arguments: [String]) async throws {
        guard arguments.count == 3, arguments[1] == "--file" else {
            throw ResourceError.badRequest("\(arguments[0]) needs --file JSON")
        }
        let document: JSONValue
        do { document = try JSONValue.parse(try SettingsFile.text(arguments[2]).utf8) } catch let error as JSONParseError {
            throw ResourceError.badRequest("\(arguments[2]): \(error)")
        }
        let restoring = arguments[0] == "recover"
        let plan = try BootstrapPlan(document)
        try await Schema.require(process.database)
        try await Bootstrap(
            database: process.database, hasher: hasher, ambient: process.ambient,
            operatorRoles: try OperatorRoles(overrides: process.policyOverrides()), restoring: restoring
        ).run(plan)
        process.log.notice(
            restoring ? "recovered" : "bootstrapped", metadata: ["users": "\(plan.users.count)", "services": "\(plan.services.count)"])
    }

    private func serve() async throws {
        guard let path = process.settings.optionalString("tokens.signing_key_file") else {
            throw ResourceError.badRequest("the setting tokens.signing_key_file is missing")
        }
        let authenticator = try process.makeAuthenticator()
        let identity = try Identity(
            database: process.database, authenticator: authenticator,
            signer: try TokenSigner(file: try SettingsFile.text(path)), hasher: hasher,
            options: IdentityOptions(
                tokenLifetime: process.settings.duration("tokens.lifetime"),
                lockoutAttempts: process.settings.integer("identity.lockout_attempts"),
                lockoutDuration: process.settings.duration("identity.lockout_duration"),
                passwordLengthMin: process.settings.integer("identity.password_length_min")),
            credentialKeys: try process.settings.optionalString("identity.credential_keys_file").map {
                try CredentialKeys(file: try SettingsFile.text($0))
            }, ambient: process.ambient, policyOverrides: try process.policyOverrides())
        try await process.run(authenticator: authenticator) { try IdentityModule.make(identity, $0) }
    }
}
