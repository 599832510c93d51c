import Kernel
import ServiceCatalog

/// Who signs on, and how.
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

/// What the token shall be good for.
package enum CloudScope: Sendable, Hashable {
    case unscoped
    case project(CloudCredentials.Named)
    case domain(CloudCredentials.Domain)
    case system
    /// What the credentials bring along: application credentials have their project.
    case implied
}

/// Where a cloud is and how to sign on to it. The values come from `clouds.yaml`, the environment or a service's settings.
package struct CloudConfiguration: Sendable {
    /// Which of a service's addresses is used.
    package enum Interface: String, Sendable, CaseIterable {
        case `public`, `internal`, admin
    }

    /// The cloud's name, for messages.
    package var name: String
    /// Base URL of Identity, with or without `/v3`.
    package var authURL: String
    package var credentials: CloudCredentials
    package var scope: CloudScope
    /// Nil takes the first endpoint of any region.
    package var region: String?
    package var interface: Interface
    /// Base URLs that are used instead of the catalog's.
    package var endpoints: [CloudService: String]
    /// False accepts any server certificate.
    package var verifiesCertificates: Bool
    /// PEM file with the certificates to trust instead of the system's.
    package var certificateFile: String?
    /// How long one request without a stream may take.
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

    /// How a Wolke service reaches the others: as the service user, at the addresses of the configuration file.
    ///
    /// - Parameters:
    ///   - endpoints: base URLs without a version path; Identity's among them.
    ///   - domain: id of the domain of the user and of the project.
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
    /// How long a request without a stream may take.
    package static let requestTimeout: Duration = .seconds(60)
    /// How long opening a connection may take, in seconds.
    static let connectSeconds: Int64 = 5
    /// How long a streamed body may pause, in seconds.
    static let streamIdleSeconds: Int64 = 120
    /// Largest response body that is collected, in bytes.
    static let responseBytesMax = 64 << 20
    /// Largest error body that is read, in bytes.
    static let errorBytesMax = 64 << 10
    /// Pages of a list that are followed.
    static let pagesMax = 10_000
    /// A token is renewed when it is valid for less than this.
    static let renewalMargin: Duration = .seconds(120)
}
