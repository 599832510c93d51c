package import Authorization
package import Cryptography
package import Database
import IdentityCore
import JSON
package import Kernel
import WebAPI

/// Settings of operators for sign-on.
package struct IdentityOptions: Sendable {
    /// How long a token is valid.
    package var tokenLifetime: Duration
    /// Wrong passwords in a row after which a user is locked; 0 for never.
    package var lockoutAttempts: Int
    /// How long a user stays locked.
    package var lockoutDuration: Duration
    /// Fewest characters of a new password.
    package var passwordLengthMin: Int

    package init(
        tokenLifetime: Duration = .seconds(43_200), lockoutAttempts: Int = 0, lockoutDuration: Duration = .seconds(1800),
        passwordLengthMin: Int = 1
    ) {
        self.tokenLifetime = tokenLifetime
        self.lockoutAttempts = lockoutAttempts
        self.lockoutDuration = lockoutDuration
        self.passwordLengthMin = passwordLengthMin
    }
}

/// The dependencies of Identity's handlers.
package struct Identity: Sendable {
    let database: Database
    let authenticator: TokenAuthenticator
    let signer: TokenSigner
    let hasher: PasswordHasher
    let options: IdentityOptions
    /// Nil if the operator has not configured keys; credentials cannot be stored then.
    let credentialKeys: CredentialKeys?
    let ambient: Ambient
    /// The operators' roles according to the policy in effect.
    let operatorRoles: OperatorRoles
    var cloudProjects: CloudProjects { CloudProjects(roles: operatorRoles) }
    let documents = TokenDocumentCache()

    /// - Parameter policyOverrides: the rules of the operator's policy file.
    /// - Throws: 400 for a policy rule about administrators or services that cannot be parsed.
    package init(
        database: Database, authenticator: TokenAuthenticator, signer: TokenSigner, hasher: PasswordHasher,
        options: IdentityOptions, credentialKeys: CredentialKeys?, ambient: Ambient,
        policyOverrides: [String: String]
    ) throws {
        self.database = database
        self.authenticator = authenticator
        self.signer = signer
        self.hasher = hasher
        self.options = options
        self.credentialKeys = credentialKeys
        self.ambient = ambient
        operatorRoles = try OperatorRoles(overrides: policyOverrides)
    }

    /// A new id in Identity's form: 32 hexadecimal digits.
    func newID() -> String { ambient.newUUID().compact }
}
