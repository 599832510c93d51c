import AsyncHTTPClient
package import JSON
package import Kernel
import NIOCore
import NIOHTTP1
package import ServiceCatalog

/// The methods of the services' APIs.
package enum RESTMethod: String, Sendable {
    case get = "GET"
    case head = "HEAD"
    case post = "POST"
    case put = "PUT"
    case patch = "PATCH"
    case delete = "DELETE"
}

/// One exchange, for `RESTClient.onExchange`.
package struct RESTExchange: Sendable {
    package let method: RESTMethod
    package let url: String
    /// Nil if there was no response.
    package let status: Int?
    /// How long the exchange took.
    package let duration: Duration
    package let requestID: String?
}

/// A client of a cloud's services: signs on, looks up the endpoint, sends the request, and retries if that is safe.
///
/// Any status other than 2xx (and 300 for version documents) is thrown as `ResourceError` with the service's message; its
/// `context` has request, status and request id. The client's own errors have a `type` from `ClientErrorType`.
package final class RESTClient: Sendable {
    package let configuration: CloudConfiguration
    package let ambient: Ambient
    let keeper: TokenKeeper
    /// The subject on whose behalf calls are made; nil for the client's own user.
    let subject: ActingSubject?
    let connection: RESTConnection

    /// - Parameters:
    ///   - cache: stores the token between processes.
    ///   - transport: a substitute for the network; nil for the process's connections.
    ///   - requestID: sent as `X-Openstack-Request-Id`, so that the logs of several services can be correlated.
    ///   - onExchange: called for every attempt.
    package init(
        _ configuration: CloudConfiguration, ambient: Ambient = Ambient(), retry: RetryPolicy = RetryPolicy(),
        cache: (any TokenCache)? = nil, transport: HTTPTransport? = nil, requestID: @escaping @Sendable () -> String? = { nil },
        onExchange: @escaping @Sendable (RESTExchange) -> Void = { _ in }
    ) {
        let connection = RESTConnection(
            transport: transport
                ?? .shared(.init(verifies: configuration.verifiesCertificates, certificateFile: configuration.certificateFile)),
            ambient: ambient, retry: retry, requestID: requestID, onExchange: onExchange)
        self.configuration = configuration
        self.ambient = ambient
        self.connection = connection
        subject = nil
        keeper = TokenKeeper(ambient: ambient, cache: cache) {
            try await RESTClient.signOn(configuration, connection)
        }
    }

    private init(_ other: RESTClient, subject: ActingSubject) {
        configuration = other.configuration
        ambient = other.ambient
        connection = other.connection
        keeper = other.keeper
        self.subject = subject
    }

    /// A client with the same connections and token that calls on behalf of `subject`. Services accept this only from a user with
    /// the role `service`.
    package func acting(for subject: ActingSubject) -> RESTClient { RESTClient(self, subject: subject) }

    /// The current token; signs on if there is none.
    package func token() async throws -> CloudToken { try await keeper.token() }

    // MARK: Requests

    /// Sends a request and returns the response.
    ///
    /// - Parameters:
    ///   - path: below the endpoint's API version (`/ports`). A path that begins with a version (`/v2.0/ports`) is below the
    ///     service's root.
    ///   - microversion: for `OpenStack-API-Version`, such as `2.96`.
    ///   - idempotencyKey: makes the request repeatable: it is sent again after a broken connection or a 503.
    ///   - timeout: for each attempt; nil for the configuration's timeout.
    /// - Throws: `ResourceError`, `CancellationError`.
    package func request(
        service: CloudService, method: RESTMethod, path: RESTPath, query: [(String, String)] = [],
        headers: [(String, String)] = [], body: JSONValue? = nil, microversion: String? = nil,
        idempotencyKey: String? = nil, timeout: Duration? = nil
    ) async throws -> RESTResponse {
        let content = body.map { ByteBuffer(bytes: $0.encoded) }
        let mayRepeat = method == .get || method == .head || idempotencyKey != nil
        return try await authorized { [self] token in
            let url = try url(service, token, path) + URLText.query(query)
            var request = connection.request(method, url, token: token, headers: headers + subjectHeaders)
            if !headers.contains(where: { $0.0.lowercased() == "accept" }) {
                request.headers.add(name: "accept", value: "application/json")
            }
            if let content {
                if !headers.contains(where: { $0.0.lowercased() == "content-type" }) {
                    request.headers.add(name: "content-type", value: "application/json")
                }
                request.body = .bytes(content)
            }
            if let idempotencyKey { request.headers.add(name: "idempotency-key", value: idempotencyKey) }
            if let microversion { RESTClient.addMicroversion(microversion, service, to: &request) }
            return try await connection.exchange(
                request, method: method, mayRepeat: mayRepeat, timeout: timeout ?? configuration.timeout)
        }
    }

    var subjectHeaders: [(String, String)] { subject?.headers ?? [] }

    static func addMicroversion(_ version: String, _ service: CloudService, to request: inout HTTPClientRequest) {
        request.headers.add(name: "openstack-api-version", value: "\(service.microversions?.serviceType ?? service.name) \(version)")
        if let legacy = service.microversions?.legacyHeader { request.headers.add(name: legacy, value: version) }
    }

    /// Runs `send` with a token, and once more with a new one if the service refuses the first or a cached one's catalog lacks the service.
    func authorized<Answer>(_ send: (CloudToken) async throws -> Answer) async throws -> Answer {
        let token = try await keeper.token()
        do {
            return try await send(token)
        } catch let error as ResourceError where error.code == .unauthorized {
            await keeper.discard(token)
            return try await send(try await keeper.token())
        } catch let error as ResourceError where error.type == ClientErrorType.noEndpoint {
            guard await keeper.discardCached(token) else { throw error }
            return try await send(try await keeper.token())
        }
    }

    // MARK: Endpoints

    /// The base URL of a service, with the version path.
    ///
    /// - Throws: `ResourceError` of type `ClientErrorType.noEndpoint`, naming the contents of the catalog.
    package func endpoint(_ service: CloudService) async throws -> String {
        try await authorized { try url(service, $0, "") }
    }

    func url(_ service: CloudService, _ token: CloudToken, _ path: RESTPath) throws -> String {
        guard
            let base = configuration.endpoints[service]
                ?? token.endpoint(service, interface: configuration.interface, region: configuration.region)
        else { throw noEndpoint(service, token) }
        let (root, version) = URLText.splitVersion(RESTClient.fillIn(base, token))
        if path.hasVersion { return root + path.description }
        return root + (version.isEmpty ? service.versionPath(project: token.projectID) : version) + path.description
    }

    /// Expands the catalog templates of configured endpoints: `$(project_id)s`, `%(tenant_id)s`.
    private static func fillIn(_ url: String, _ token: CloudToken) -> String {
        guard let project = token.projectID, url.contains("(") else { return url }
        var url = url
        for name in ["project_id", "tenant_id"] {
            url = url.replacing("$(\(name))s", with: project).replacing("%(\(name))s", with: project)
        }
        return url
    }

    private func noEndpoint(_ service: CloudService, _ token: CloudToken) -> ResourceError {
        let regions = token.regions(service)
        let message: String
        if regions.isEmpty {
            let types = token.serviceTypes.joined(separator: ", ")
            message =
                """
                The catalog of cloud \(configuration.name) has no service of type \(service.name); it has: \
                \(types.isEmpty ? "nothing (is the token scoped to a project?)" : types).
                """
        } else {
            let place = configuration.region.map { " in region \($0)" } ?? ""
            message =
                """
                The catalog of cloud \(configuration.name) has no \(configuration.interface.rawValue) endpoint for \
                \(service.name)\(place); regions with this service: \(regions.joined(separator: ", ")).
                """
        }
        return ResourceError(.unavailable, message, type: ClientErrorType.noEndpoint)
    }

    // MARK: Signing on

    private static func signOn(_ configuration: CloudConfiguration, _ connection: RESTConnection) async throws -> CloudToken {
        let (root, version) = URLText.splitVersion(configuration.authURL)
        let url = root + (version.isEmpty ? "/v3" : version) + "/auth/tokens"
        var request = connection.request(
            .post, url, token: nil, headers: [("accept", "application/json"), ("content-type", "application/json")])
        request.body = .bytes(ByteBuffer(bytes: SignOn.body(configuration.credentials, scope: configuration.scope).encoded))
        let response: RESTResponse
        do {
            // Concurrent sign-ons are harmless; they only create another token.
            response = try await connection.exchange(request, method: .post, mayRepeat: true, timeout: configuration.timeout)
        } catch var error as ResourceError {
            if error.code == .unauthorized || error.code == .forbidden { error.type = ClientErrorType.signOnRefused }
            if error.code == .notFound { error.type = ClientErrorType.noIdentity }
            throw error
        }
        guard let secret = response.headers["x-subject-token"], let document = response.json["token"],
            let token = CloudToken(secret: Secret(secret), document: document)
        else {
            throw ResourceError(
                .unavailable, "The address \(configuration.authURL) is not an Identity v3 endpoint.",
                type: ClientErrorType.noIdentity, context: "no token in the answer of \(url)")
        }
        return token
    }
}

/// `ResourceError.type` of the client's own errors.
package enum ClientErrorType {
    /// Identity refused the credentials.
    package static let signOnRefused = "client.sign_on_refused"
    /// There is no Identity v3 at the address.
    package static let noIdentity = "client.no_identity"
    /// The catalog has no such service.
    package static let noEndpoint = "client.no_endpoint"
    /// No connection, or it broke.
    package static let unreachable = "client.unreachable"
}
