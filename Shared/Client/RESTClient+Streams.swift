import AsyncHTTPClient
package import JSON
import Kernel
package import NIOCore
import NIOHTTP1
package import ServiceCatalog

extension RESTClient {
    /// Starts a download; the body is read from `RESTDownload.body` as it arrives.
    ///
    /// - Throws: as `request`.
    package func download(
        service: CloudService, path: RESTPath, query: [(String, String)] = [], headers: [(String, String)] = []
    ) async throws -> RESTDownload {
        try await authorized { [self] token in
            let url = try url(service, token, path) + URLText.query(query)
            let request = connection.request(.get, url, token: token, headers: headers + subjectHeaders)
            return try await connection.repeating(request, mayRepeat: true) {
                let (response, headers) = try await connection.open(request, method: .get, timeout: nil)
                return RESTDownload(
                    status: Int(response.status.code), headers: headers,
                    length: headers["content-length"].flatMap { Int64($0) }, body: RESTBody(content: response.body))
            }
        }
    }

    /// Sends a body as it becomes available.
    ///
    /// - Parameters:
    ///   - length: the number of bytes; nil for chunked encoding.
    ///   - open: opens the body at its start; called again if the service requires another token.
    /// - Throws: as `request`, and errors of the body.
    package func upload<Bytes: AsyncSequence & Sendable>(
        service: CloudService, method: RESTMethod = .put, path: RESTPath, headers: [(String, String)] = [],
        length: Int64?, open: @Sendable () throws -> Bytes
    ) async throws -> RESTResponse where Bytes.Element == ByteBuffer {
        try await authorized { [self] token in
            var request = connection.request(method, try url(service, token, path), token: token, headers: headers + subjectHeaders)
            if !headers.contains(where: { $0.0.lowercased() == "content-type" }) {
                request.headers.add(name: "content-type", value: "application/octet-stream")
            }
            request.body = .stream(try open(), length: length.map { .known($0) } ?? .unknown)
            let prepared = request
            do {
                let (response, headers) = try await connection.open(prepared, method: method, timeout: nil)
                let bytes = try await connection.transport.collect(response, bytesMax: ClientLimits.responseBytesMax)
                return try RESTConnection.answer(Int(response.status.code), headers, bytes, prepared)
            } catch let error as TransportError {
                throw RESTConnection.unreachable(prepared, error)
            }
        }
    }

    // MARK: Lists

    /// Returns all elements of a list, following its pages.
    ///
    /// Only the query of a `next` link is used, because its host may be wrong behind a proxy.
    ///
    /// - Parameters:
    ///   - key: the member with the elements, such as `servers`.
    ///   - limit: the maximum number of elements; nil for all.
    /// - Throws: as `request`.
    package func list(
        service: CloudService, path: RESTPath, key: String, query: [(String, String)] = [],
        headers: [(String, String)] = [], microversion: String? = nil, limit: Int? = nil
    ) async throws -> [JSONValue] {
        var elements: [JSONValue] = []
        var query = query
        for _ in 0..<ClientLimits.pagesMax {
            let response = try await request(
                service: service, method: .get, path: path, query: query, headers: headers, microversion: microversion)
            let page = try response.member(key).arrayValue ?? []
            elements += page
            if let limit, elements.count >= limit { return Array(elements.prefix(limit)) }
            guard !page.isEmpty, let next = RESTClient.nextLink(response.json, key: key) else { return elements }
            query = URLText.queryItems(of: next)
        }
        throw ResourceError.unavailable("the list \(path) has more than \(ClientLimits.pagesMax) pages")
    }

    /// The link to the next page: `servers_links` and the like; Image's `next`; Identity's `links.next`.
    private static func nextLink(_ json: JSONValue, key: String) -> String? {
        if let next = json["next"]?.stringValue { return next }
        if let next = json["links"]?["next"]?.stringValue { return next }
        for link in json[key + "_links"]?.arrayValue ?? [] where link["rel"]?.stringValue == "next" {
            return link["href"]?.stringValue
        }
        return nil
    }

    // MARK: Short forms

    /// Returns the JSON response of a GET.
    ///
    /// - Throws: `ResourceError` as `request`.
    package func get(_ service: CloudService, _ path: RESTPath, query: [(String, String)] = [], microversion: String? = nil) async throws
        -> JSONValue
    {
        try await request(service: service, method: .get, path: path, query: query, microversion: microversion).json
    }

    /// Returns the JSON response of a POST.
    ///
    /// - Throws: `ResourceError` as `request`.
    @discardableResult
    package func post(
        _ service: CloudService, _ path: RESTPath, _ body: JSONValue, microversion: String? = nil, idempotencyKey: String? = nil
    ) async throws -> JSONValue {
        try await request(
            service: service, method: .post, path: path, body: body, microversion: microversion, idempotencyKey: idempotencyKey
        ).json
    }

    /// Returns the JSON response of a PUT.
    ///
    /// - Throws: `ResourceError` as `request`.
    @discardableResult
    package func put(
        _ service: CloudService, _ path: RESTPath, _ body: JSONValue? = nil, microversion: String? = nil, idempotencyKey: String? = nil
    ) async throws -> JSONValue {
        try await request(
            service: service, method: .put, path: path, body: body, microversion: microversion, idempotencyKey: idempotencyKey
        ).json
    }

    /// Deletes a resource; 404 is a success if `missingIsFine`.
    package func delete(
        _ service: CloudService, _ path: RESTPath, query: [(String, String)] = [], microversion: String? = nil,
        idempotencyKey: String? = nil, missingIsFine: Bool = false
    ) async throws {
        do {
            _ = try await request(
                service: service, method: .delete, path: path, query: query, microversion: microversion, idempotencyKey: idempotencyKey)
        } catch let error as ResourceError where error.code == .notFound && missingIsFine {
            return
        }
    }
}
