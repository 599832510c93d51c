import AsyncHTTPClient
import JSON
import Kernel
import NIOCore
import NIOHTTP1

/// Sends, measures and retries requests; independent of tokens and catalogs.
struct RESTConnection: Sendable {
    let transport: HTTPTransport
    let ambient: Ambient
    let retry: RetryPolicy
    let requestID: @Sendable () -> String?
    let onExchange: @Sendable (RESTExchange) -> Void

    func request(_ method: RESTMethod, _ url: String, token: CloudToken?, headers: [(String, String)]) -> HTTPClientRequest {
        var request = HTTPClientRequest(url: url)
        request.method = .init(rawValue: method.rawValue)
        request.headers.add(name: "user-agent", value: "wolke")
        if let token { request.headers.add(name: "x-auth-token", value: token.secret.exposed) }
        if let id = requestID() { request.headers.add(name: "x-openstack-request-id", value: id) }
        for (name, value) in headers { request.headers.add(name: name, value: value) }
        return request
    }

    /// Sends a request, retries it if allowed, and collects the response body.
    func exchange(
        _ request: HTTPClientRequest, method: RESTMethod, mayRepeat: Bool, timeout: Duration
    ) async throws -> RESTResponse {
        try await repeating(request, mayRepeat: mayRepeat) {
            let (response, headers) = try await open(request, method: method, timeout: timeout)
            let bytes = try await WorkSeat.yielding {
                try await transport.collect(response, bytesMax: ClientLimits.responseBytesMax)
            }
            return try RESTConnection.answer(Int(response.status.code), headers, bytes, request)
        }
    }

    /// Runs `send` until it succeeds, fails permanently, or has used all attempts.
    func repeating<Answer>(
        _ request: HTTPClientRequest, mayRepeat: Bool, _ send: () async throws -> Answer
    ) async throws -> Answer {
        var attempt = 1
        while true {
            do {
                return try await send()
            } catch let error as TransportError {
                guard attempt < retry.attemptsMax, mayRepeat || error.isBeforeSending else {
                    throw RESTConnection.unreachable(request, error)
                }
                try await ambient.time.sleep(for: retry.pause(after: attempt, asked: nil, random: ambient.random))
            } catch let error as ResourceError where error.code == .unavailable {
                guard attempt < retry.attemptsMax, mayRepeat, error.type == nil else { throw error }
                try await ambient.time.sleep(for: retry.pause(after: attempt, asked: error.retryAfter, random: ambient.random))
            }
            attempt += 1
        }
    }

    /// Sends a request and returns once the head of a successful response has arrived.
    ///
    /// - Parameter timeout: nil for streams.
    /// - Throws: `TransportError`; `ResourceError` for any other status.
    func open(
        _ request: HTTPClientRequest, method: RESTMethod, timeout: Duration?
    ) async throws -> (HTTPClientResponse, RESTHeaders) {
        let start = ambient.time.monotonicNanoseconds()
        func tell(_ status: Int?, _ requestID: String?) {
            let spent = Duration.nanoseconds(Int64(ambient.time.monotonicNanoseconds() - start))
            onExchange(RESTExchange(method: method, url: request.url, status: status, duration: spent, requestID: requestID))
        }
        let response: HTTPClientResponse
        do {
            response = try await WorkSeat.yielding { try await transport.send(request, timeout: timeout) }
        } catch {
            tell(nil, nil)
            throw error
        }
        let headers = RESTHeaders(response.headers.map { (name: $0.name, value: $0.value) })
        let status = Int(response.status.code)
        tell(status, headers.requestID)
        guard (200...300).contains(status) else {
            let bytes = try await transport.collect(response, bytesMax: ClientLimits.errorBytesMax, truncates: true)
            throw ErrorBody.error(
                status: status, headers: headers, body: bytes, description: "\(method.rawValue) \(request.url)")
        }
        return (response, headers)
    }

    static func answer(_ status: Int, _ headers: RESTHeaders, _ bytes: [UInt8], _ request: HTTPClientRequest) throws -> RESTResponse {
        guard !bytes.isEmpty, headers["content-type"]?.lowercased().contains("json") == true else {
            return RESTResponse(status: status, headers: headers, json: .null, body: bytes)
        }
        do throws(JSONParseError) {
            return RESTResponse(status: status, headers: headers, json: try JSONValue.parse(bytes), body: [])
        } catch {
            throw ResourceError.unavailable("the answer to \(request.url) is not valid JSON: \(error)")
        }
    }

    static func unreachable(_ request: HTTPClientRequest, _ error: TransportError) -> ResourceError {
        ResourceError(
            .unavailable, "A required service does not respond; try again.", type: ClientErrorType.unreachable,
            context: "\(request.method.rawValue) \(request.url): \(error.reason)", retryAfter: 1)
    }
}
