import AsyncHTTPClient
package import JSON
import Kernel
package import NIOCore

/// Header fields of a response; names are case-insensitive.
package struct RESTHeaders: Sendable {
    package let fields: [(name: String, value: String)]

    init(_ fields: [(name: String, value: String)]) { self.fields = fields }

    /// The first value of the field.
    package subscript(_ name: String) -> String? {
        let name = name.lowercased()
        return fields.first { $0.name.lowercased() == name }?.value
    }

    /// The request id in the service's logs.
    package var requestID: String? { self["x-openstack-request-id"] ?? self["x-compute-request-id"] }
}

/// A successful response.
package struct RESTResponse: Sendable {
    package let status: Int
    package let headers: RESTHeaders
    /// The parsed body; null if it is empty or not JSON.
    package let json: JSONValue
    /// The body's bytes if it is not JSON, otherwise empty.
    package let body: [UInt8]

    /// The member `name`, an object or list.
    ///
    /// - Throws: `ResourceError` 503 if the response has no such member, because the service does not implement the API.
    package func member(_ name: String) throws -> JSONValue {
        guard let value = json[name] else {
            throw ResourceError.unavailable(
                "the answer (status \(status), request \(headers.requestID ?? "without id")) has no member \"\(name)\"")
        }
        return value
    }
}

/// A response whose body is read as it arrives.
package struct RESTDownload: Sendable {
    package let status: Int
    package let headers: RESTHeaders
    /// The length of the body, if the service sent it.
    package let length: Int64?
    package let body: RESTBody
}

/// A body as it arrives; it can be iterated once.
package struct RESTBody: AsyncSequence, Sendable {
    package typealias Element = ByteBuffer

    let content: HTTPClientResponse.Body

    package struct AsyncIterator: AsyncIteratorProtocol {
        var iterator: HTTPClientResponse.Body.AsyncIterator

        /// - Throws: `ResourceError` 503 if the connection breaks before the end.
        package mutating func next() async throws -> ByteBuffer? {
            do {
                return try await iterator.next()
            } catch let error as CancellationError {
                throw error
            } catch {
                throw ResourceError.unavailable("the transfer was interrupted: \(error)")
            }
        }
    }

    package func makeAsyncIterator() -> AsyncIterator { AsyncIterator(iterator: content.makeAsyncIterator()) }
}
