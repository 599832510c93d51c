import AsyncHTTPClient
import Glibc
package import Kernel
package import NIOCore
import NIOHTTP1

/// Downloads from addresses that users name, without giving them access to networks that only the service can reach (S13).
///
/// The host is resolved once, all its addresses must be permitted, and the connection goes to the address that was checked: a
/// second answer of the name server has no effect. Redirects are followed by the same rules. Requests carry no credentials.
package struct PublicDownload: Sendable {
    package struct Rules: Sendable {
        package var addresses = PublicAddresses()
        package var ports: Set<Int> = [80, 443]
        /// Allowed hosts; nil for all.
        package var hosts: Set<String>?
        package var deniedHosts: Set<String> = []
        package var redirectsMax = 5
        /// The time limit of the whole download.
        package var timeMax: Duration = .seconds(3600)
        /// The time limit between two pieces of data.
        package var idleMax: Duration = .seconds(60)

        package init() {}
    }

    /// The addresses of a host name.
    package typealias Resolve = @Sendable (_ host: String) async throws -> [IPAddress]

    private let rules: Rules
    private let ambient: Ambient
    private let resolve: Resolve

    private static let connectMax: Int64 = 10

    package init(_ rules: Rules, ambient: Ambient, resolve: @escaping Resolve = PublicDownload.system) {
        self.rules = rules
        self.ambient = ambient
        self.resolve = resolve
    }

    /// Checks the parts that need no connection.
    ///
    /// - Throws: `DownloadRefusal`.
    @discardableResult
    package func check(_ text: String) throws(DownloadRefusal) -> PublicURL {
        let url = try PublicURL(text)
        try check(url)
        return url
    }

    private func check(_ url: PublicURL) throws(DownloadRefusal) {
        guard rules.ports.contains(url.port) else { throw DownloadRefusal("the port \(url.port) is not allowed") }
        if let hosts = rules.hosts, !hosts.contains(url.host) { throw DownloadRefusal("the host \(url.host) is not allowed") }
        guard !rules.deniedHosts.contains(url.host) else { throw DownloadRefusal("the host \(url.host) is not allowed") }
        if let address = IPAddress(url.host), !rules.addresses.permits(address) {
            throw DownloadRefusal("the address \(url.host) is not public")
        }
    }

    /// Passes the content to `receive`, piece by piece.
    ///
    /// - Parameter bytesMax: larger content is refused.
    /// - Returns: the number of bytes.
    /// - Throws: `DownloadRefusal`; errors of `receive`; `CancellationError`.
    package func download(
        _ text: String, bytesMax: Int, _ receive: @Sendable (ByteBuffer) async throws -> Void
    ) async throws -> Int {
        let started = ambient.time.monotonicNanoseconds()
        var url = try check(text)
        for _ in 0...rules.redirectsMax {
            let address = try await address(of: url)
            switch try await fetch(url, at: address, bytesMax: bytesMax, started: started, receive) {
            case .content(let count): return count
            case .redirect(let location):
                url = try url.redirected(to: location)
                try check(url)
            }
        }
        throw DownloadRefusal("the server redirects more than \(rules.redirectsMax) times")
    }

    /// The address to connect to.
    private func address(of url: PublicURL) async throws -> IPAddress {
        if let address = IPAddress(url.host) { return address }
        let addresses = try await resolve(url.host)
        guard let first = addresses.first else { throw DownloadRefusal("the host \(url.host) is not known") }
        // A single forbidden address is enough to refuse, because the choice of the address must not decide.
        guard addresses.allSatisfy(rules.addresses.permits) else {
            throw DownloadRefusal("the host \(url.host) has an address that is not public")
        }
        return first
    }

    private enum Outcome {
        case content(Int)
        case redirect(String)
    }

    private func fetch(
        _ url: PublicURL, at address: IPAddress, bytesMax: Int, started: UInt64, _ receive: @Sendable (ByteBuffer) async throws -> Void
    ) async throws -> Outcome {
        var configuration = HTTPClient.Configuration(
            redirectConfiguration: .disallow,
            timeout: .init(connect: .seconds(PublicDownload.connectMax), read: .microseconds(rules.idleMax.microseconds)))
        configuration.httpVersion = .http1Only
        configuration.connectionPool.retryConnectionEstablishment = false
        configuration.dnsOverride = [url.host: address.description]
        let client = HTTPClient(eventLoopGroupProvider: .singleton, configuration: configuration)
        do {
            let outcome = try await exchange(client, url, bytesMax: bytesMax, started: started, receive)
            try await client.shutdown()
            return outcome
        } catch {
            do { try await client.shutdown() } catch { throw DownloadRefusal("the connection could not be closed") }
            throw error
        }
    }

    private func exchange(
        _ client: HTTPClient, _ url: PublicURL, bytesMax: Int, started: UInt64, _ receive: @Sendable (ByteBuffer) async throws -> Void
    ) async throws -> Outcome {
        var request = HTTPClientRequest(url: url.description)
        request.headers.add(name: "user-agent", value: "wolke")
        request.headers.add(name: "accept", value: "*/*")
        request.headers.add(name: "accept-encoding", value: "identity")
        let response: HTTPClientResponse
        do {
            response = try await client.execute(request, deadline: .now() + .microseconds(rules.timeMax.microseconds))
        } catch {
            throw DownloadRefusal("the host \(url.host) does not answer: \(try TransportError.wrap(error).reason)")
        }
        switch response.status.code {
        case 200: break
        case 301, 302, 303, 307, 308:
            guard let location = response.headers.first(name: "location") else {
                throw DownloadRefusal("the server redirects without an address")
            }
            return .redirect(location)
        case let code: throw DownloadRefusal("the server answered \(code)")
        }
        let length = response.headers.first(name: "content-length").flatMap { Int($0) }
        let tooLarge = DownloadRefusal("the content is larger than \(bytesMax) bytes")
        if let length, length > bytesMax { throw tooLarge }
        var count = 0
        var body = response.body.makeAsyncIterator()
        while let piece = try await next(&body) {
            count += piece.readableBytes
            guard count <= bytesMax else { throw tooLarge }
            let spent = Duration.nanoseconds(Int64(ambient.time.monotonicNanoseconds() - started))
            guard spent < rules.timeMax else { throw DownloadRefusal("the download takes too long") }
            try await receive(piece)
        }
        if let length, length != count { throw DownloadRefusal("the content ended after \(count) of \(length) bytes") }
        return .content(count)
    }

    private func next(_ body: inout HTTPClientResponse.Body.AsyncIterator) async throws -> ByteBuffer? {
        do { return try await body.next() } catch {
            throw DownloadRefusal("the content could not be read: \(try TransportError.wrap(error).reason)")
        }
    }

    // MARK: names

    private static let threads = WorkerThreads(name: "resolve", count: 8)

    /// The system's resolver.
    package static let system: Resolve = { host in
        try await threads.run {
            var hints = addrinfo()
            hints.ai_socktype = Int32(SOCK_STREAM.rawValue)
            var list: UnsafeMutablePointer<addrinfo>?
            guard getaddrinfo(host, nil, &hints, &list) == 0 else { return [] }
            defer { freeaddrinfo(list) }
            return sequence(first: list) { $0?.pointee.ai_next }.compactMap { $0.flatMap { address($0.pointee) } }
        }
    }

    private static func address(_ info: addrinfo) -> IPAddress? {
        guard let pointer = info.ai_addr else { return nil }
        switch info.ai_family {
        case AF_INET:
            let raw = pointer.withMemoryRebound(to: sockaddr_in.self, capacity: 1) { $0.pointee.sin_addr.s_addr }
            return IPAddress(version: .v4, value: UInt128(UInt32(bigEndian: raw)))
        case AF_INET6:
            let bytes = pointer.withMemoryRebound(to: sockaddr_in6.self, capacity: 1) { place in
                withUnsafeBytes(of: place.pointee.sin6_addr) { Array($0) }
            }
            return IPAddress(version: .v6, value: bytes.reduce(UInt128(0)) { $0 << 8 | UInt128($1) })
        default: return nil
        }
    }
}
