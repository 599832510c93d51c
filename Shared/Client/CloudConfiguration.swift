package import Kernel
package import ServiceCatalog

/// Credentials for signing on.
package enum CloudCredentials: Sendable {
    case password(user: Named, password: Secret<String>)
    case applicationCredential(id: String, secret: Secret<String>)
    /// By name, which is unique per user.
    case namedApplicationCredential(name: String, user: Named, secret: Secret<String>)
    case token(Secret<String>)

    /// A user or project, by id, or by name within a domain.
    package enum Named: Sendable, Hashable {
        case id(String)
        case name(String, domain: Domain)
    }

    /// A domain, by id or by name.
    package enum Domain: Sendable, Hashable {
        case id(String)
        case name(String)
    }
}

/// The requested scope of the token.
package enum CloudScope: Sendable, Hashable {
    case unscoped
    case project(CloudCredentials.Named)
    case domain(CloudCredentials.Domain)
    case system
    /// The scope of the credentials: application credentials have their own project.
    case implied
}

/// The address and credentials of a cloud. The values come from `clouds.yaml`, the environment or a service's settings.
package struct CloudConfiguration: Sendable {
    /// The kind of a service's endpoint to use.
    package enum Interface: String, Sendable, CaseIterable {
        case `public`, `internal`, admin
    }

    /// The cloud's name, for messages.
    package var name: String
    /// Base URL of Identity, with or without `/v3`.
    package var authURL: String
    package var credentials: CloudCredentials
    package var scope: CloudScope
    /// Nil for the first endpoint of any region.
    package var region: String?
    package var interface: Interface
    /// Base URLs that override the catalog.
    package var endpoints: [CloudService: String]
    /// If false, any server certificate is accepted.
    package var verifiesCertificates: Bool
    /// PEM file with the trusted certificates, instead of the system's.
    package var certificateFile: String?
    /// Timeout of a request without a stream.
    package var timeout: Duration

    package init(
        name: String, authURL: String, credentials: CloudCredentials, scope: CloudScope, region: String? = nil,
        interface: Interface = .public, endpoints: [CloudService: String] = [:], verifiesCertificates: Bool = true,
        certificateFile: String? = nil, timeout: Duration = ClientLimits.requestTimeout
    ) {
        self.name = name
        self.authURL = authURL
        self.credentials = credentials
        self.scope = scope
        self.region = region
        self.interface = interface
        self.endpoints = endpoints
        self.verifiesCertificates = verifiesCertificates
        self.certificateFile = certificateFile
        self.timeout = timeout
    }

    /// The configuration with which a Wolke service calls the others: as the service user, with the addresses of the
    /// configuration file.
    ///
    /// - Parameters:
    ///   - endpoints: base URLs without a version path, including Identity's.
    ///   - domain: the id of the domain of the user and of the project.
    package static func serviceUser(
        endpoints: [CloudService: String], user: String, password: Secret<String>, domain: String, project: String
    ) -> CloudConfiguration {
        CloudConfiguration(
            name: "service user \(user)", authURL: endpoints[.identity] ?? "",
            credentials: .password(user: .name(user, domain: .id(domain)), password: password),
            scope: .project(.name(project, domain: .id(domain))), endpoints: endpoints)
    }
}

/// Limits of the client.
package enum ClientLimits {
    /// Timeout of a request without a stream.
    package static let requestTimeout: Duration = .seconds(60)
    /// Timeout of opening a connection, in seconds.
    static let connectSeconds: Int64 = 5
    /// The longest pause of a streamed body, in seconds.
    static let streamIdleSeconds: Int64 = 120
    /// Largest response body that is collected, in bytes.
    static let responseBytesMax = 64 << 20
    /// Largest error body, in bytes.
    static let errorBytesMax = 64 << 10
    /// The number of pages of a list that are followed.
    static let pagesMax = 10_000
    /// A token is renewed if it is valid for less than this.
    static let renewalMargin: Duration = .seconds(120)
}
