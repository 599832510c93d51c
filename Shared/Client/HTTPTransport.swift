import AsyncHTTPClient
import Glibc
import Kernel
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOSSL
import Synchronization

/// Connections to the APIs. There is one pool per TLS setting, kept for the life of the process.
package final class HTTPTransport: Sendable {
    /// A request as passed to a substitute for the network.
    package struct Outgoing: Sendable {
        package let method: String
        package let url: String
        package let headers: [(String, String)]
        package let body: [UInt8]

        package init(method: String, url: String, headers: [(String, String)], body: [UInt8]) {
            self.method = method
            self.url = url
            self.headers = headers
            self.body = body
        }
    }

    /// A complete response.
    package struct Incoming: Sendable {
        package let status: Int
        package let headers: [(String, String)]
        package let body: [UInt8]

        package init(status: Int, headers: [(String, String)], body: [UInt8]) {
            self.status = status
            self.headers = headers
            self.body = body
        }
    }

    /// Sends one request and reads the response.
    package typealias Exchange = @Sendable (Outgoing, _ timeout: Duration?) async throws -> Incoming

    struct TLSSettings: Hashable {
        let verifies: Bool
        let certificateFile: String?
    }

    private static let pools = Mutex<[TLSSettings: HTTPTransport]>([:])

    static func shared(_ settings: TLSSettings) -> HTTPTransport {
        pools.withLock { pools in
            if let pool = pools[settings] { return pool }
            let pool = HTTPTransport(settings)
            pools[settings] = pool
            return pool
        }
    }

    private let client: HTTPClient?
    private let exchange: Exchange?

    /// A transport without a network: requests go to `exchange`, which throws `TransportError` if there is no response.
    package init(_ exchange: @escaping Exchange) {
        client = nil
        self.exchange = exchange
    }

    private init(_ settings: TLSSettings) {
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow,
            timeout: .init(
                connect: .seconds(ClientLimits.connectSeconds), read: .seconds(ClientLimits.streamIdleSeconds)))
        if !settings.verifies || settings.certificateFile != nil {
            var tls = HTTPClient.Configuration(certificateVerification: .fullVerification).tlsConfiguration
            if !settings.verifies { tls?.certificateVerification = .none }
            if let file = settings.certificateFile { tls?.trustRoots = .file(file) }
            configuration.tlsConfiguration = tls
        }
        configuration.httpVersion = .http1Only
        // Disable automatic retries; the caller knows whether a request may be repeated.
        configuration.connectionPool.retryConnectionEstablishment = false
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        exchange = nil
    }

    private init(trusting certificate: NIOSSLCertificate) {
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow, timeout: .init(connect: .seconds(ClientLimits.connectSeconds)))
        var tls = HTTPClient.Configuration(certificateVerification: .fullVerification).tlsConfiguration
        tls?.trustRoots = .certificates([certificate])
        configuration.tlsConfiguration = tls
        configuration.httpVersion = .http1Only
        configuration.connectionPool.retryConnectionEstablishment = false
        client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        exchange = nil
    }

    /// Sends one request, on a connection of its own, to a server that has said before which certificate it has.
    ///
    /// - Parameter certificate: in PEM; also the host's address must be in it.
    /// - Throws: like `exchange`; 400 for a certificate that cannot be read.
    package static func exchange(
        _ request: Outgoing, trusting certificate: String, timeout: Duration, bytesMax: Int
    ) async throws -> Incoming {
        let trusted: NIOSSLCertificate
        do { trusted = try NIOSSLCertificate(bytes: Array(certificate.utf8), format: .pem) } catch {
            throw ResourceError.badRequest("The certificate of the server cannot be read.")
        }
        let transport = HTTPTransport(trusting: trusted)
        let result: Result<Incoming, any Error>
        do {
            result = .success(try await transport.exchange(request, timeout: timeout, bytesMax: bytesMax))
        } catch {
            result = .failure(error)
        }
        // The connection is not used again: what it could still fail with is of no interest.
        do { try await transport.client?.shutdown() } catch {}
        return try result.get()
    }

    /// Connections to servers outside the cloud, such as machines' controllers.
    ///
    /// - Parameters:
    ///   - verifies: whether the server's certificate is checked.
    ///   - certificateFile: the authorities to trust; nil for those of the system.
    package static func to(verifies: Bool, certificateFile: String?) -> HTTPTransport {
        shared(TLSSettings(verifies: verifies, certificateFile: certificateFile))
    }

    /// Sends one request and reads the response.
    ///
    /// - Throws: `TransportError`; 503 for a body of more than `bytesMax`; `CancellationError`.
    package func exchange(_ request: Outgoing, timeout: Duration, bytesMax: Int) async throws -> Incoming {
        var outgoing = HTTPClientRequest(url: request.url)
        outgoing.method = .init(rawValue: request.method)
        for (name, value) in request.headers { outgoing.headers.add(name: name, value: value) }
        if !request.body.isEmpty { outgoing.body = .bytes(ByteBuffer(bytes: request.body)) }
        let response = try await send(outgoing, timeout: timeout)
        let body = try await collect(response, bytesMax: bytesMax)
        return Incoming(status: Int(response.status.code), headers: response.headers.map { ($0.name, $0.value) }, body: body)
    }

    /// - Parameter timeout: for the whole exchange; nil for a stream, for which only pauses are limited.
    /// - Throws: `TransportError`, `CancellationError`.
    func send(_ request: HTTPClientRequest, timeout: Duration?) async throws -> HTTPClientResponse {
        guard let client else { return try await stand(in: request, timeout) }
        let deadline: NIODeadline = timeout.map { .now() + .microseconds($0.microseconds) } ?? .distantFuture
        do {
            return try await client.execute(request, deadline: deadline)
        } catch {
            throw try TransportError.wrap(error)
        }
    }

    private func stand(in request: HTTPClientRequest, _ timeout: Duration?) async throws -> HTTPClientResponse {
        guard let exchange else { throw TransportError(isBeforeSending: true, reason: "there is no connection") }
        var body: [UInt8] = []
        if let content = request.body { for try await chunk in content { body += chunk.readableBytesView } }
        let answer = try await exchange(
            Outgoing(
                method: request.method.rawValue, url: request.url, headers: request.headers.map { ($0.name, $0.value) },
                body: body), timeout)
        return HTTPClientResponse(
            status: .init(statusCode: answer.status), headers: .init(answer.headers),
            body: .bytes(ByteBuffer(bytes: answer.body)))
    }

    /// Reads the whole body.
    ///
    /// - Parameter truncates: keep the first `bytesMax` bytes of a larger body instead of failing.
    func collect(_ response: HTTPClientResponse, bytesMax: Int, truncates: Bool = false) async throws -> [UInt8] {
        var bytes: [UInt8] = []
        do {
            for try await chunk in response.body {
                guard bytes.count + chunk.readableBytes <= bytesMax else {
                    if truncates { return bytes + chunk.readableBytesView.prefix(bytesMax - bytes.count) }
                    throw ResourceError.unavailable("the answer is larger than \(bytesMax) bytes")
                }
                bytes.append(contentsOf: chunk.readableBytesView)
            }
        } catch let error as ResourceError {
            throw error
        } catch {
            throw try TransportError.wrap(error)
        }
        return bytes
    }
}

/// There was no response.
package struct TransportError: Error {
    /// Whether nothing was sent, so that any request may be repeated.
    package let isBeforeSending: Bool
    package let reason: String

    package init(isBeforeSending: Bool, reason: String) {
        self.isBeforeSending = isBeforeSending
        self.reason = reason
    }

    /// - Throws: `CancellationError` if the request was cancelled.
    static func wrap(_ error: any Error) throws -> TransportError {
        if let error = error as? TransportError { return error }
        if error is CancellationError { throw error }
        if let error = error as? HTTPClientError {
            switch error {
            case .cancelled: throw CancellationError()
            case .connectTimeout: return TransportError(isBeforeSending: true, reason: "no answer within \(ClientLimits.connectSeconds) s")
            case .deadlineExceeded, .readTimeout: return TransportError(isBeforeSending: false, reason: "the answer took too long")
            case .remoteConnectionClosed:
                return TransportError(isBeforeSending: false, reason: "the connection was closed before the answer")
            case .invalidURL, .emptyHost, .emptyScheme:
                return TransportError(isBeforeSending: false, reason: "the address is not a valid URL")
            default: return TransportError(isBeforeSending: false, reason: error.shortDescription)
            }
        }
        if let error = error as? NIOConnectionError { return TransportError(isBeforeSending: true, reason: reason(error)) }
        if let error = error as? IOError {
            return TransportError(isBeforeSending: error.errnoCode == ECONNREFUSED, reason: reason(error))
        }
        return TransportError(isBeforeSending: false, reason: "\(error)")
    }

    private static func reason(_ error: NIOConnectionError) -> String {
        if let first = error.connectionErrors.first?.error as? IOError { return reason(first) }
        if error.dnsAError != nil || error.dnsAAAAError != nil { return "the host name \(error.host) is not known" }
        return "\(error)"
    }

    private static func reason(_ error: IOError) -> String {
        switch error.errnoCode {
        case ECONNREFUSED: "connection refused"
        case EHOSTUNREACH, ENETUNREACH: "no route to the host"
        case ECONNRESET: "the connection was reset"
        default: "\(error)"
        }
    }
}
