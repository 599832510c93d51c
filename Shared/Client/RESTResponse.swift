import AsyncHTTPClient
import JSON
import Kernel
import NIOCore

/// Header fields of a response; names are compared without regard to case.
package struct RESTHeaders: Sendable {
    package let fields: [(name: String, value: String)]

    init(_ fields: [(name: String, value: String)]) { self.fields = fields }

    /// The first value of that name.
    package subscript(_ name: String) -> String? {
        let name = name.lowercased()
        return fields.first { $0.name.lowercased() == name }?.value
    }

    /// The id under which the service logs the request.
    package var requestID: String? { self["x-openstack-request-id"] ?? self["x-compute-request-id"] }
}

/// A successful answer.
package struct RESTResponse: Sendable {
    package let status: Int
    package let headers: RESTHeaders
    /// The parsed body; null when it is empty or no JSON.
    package let json: JSONValue
    /// The body's bytes when it is no JSON, otherwise empty.
    package let body: [UInt8]

    /// The object or list under a name.
    ///
    /// - Throws: `ResourceError` 503 when the answer has no such member: the service does not speak the API.
    package func member(_ name: String) throws -> JSONValue {
        guard let value = json[name] else {
            throw ResourceError.unavailable(
                "the answer (status \(status), request \(headers.requestID ?? "without id")) has no member \"\(name)\"")
        }
        return value
    }
}

/// An answer whose body is read as it arrives.
package struct RESTDownload: Sendable {
    package let status: Int
    package let headers: RESTHeaders
    /// Bytes to come, where the service said so.
    package let length: Int64?
    package let body: RESTBody
}

/// A body as it arrives; to be iterated once.
package struct RESTBody: AsyncSequence, Sendable {
    package typealias Element = ByteBuffer

    let content: HTTPClientResponse.Body

    package struct AsyncIterator: AsyncIteratorProtocol {
        var iterator: HTTPClientResponse.Body.AsyncIterator

        /// - Throws: `ResourceError` 503 when the connection breaks before the end.
        package mutating func next() async throws -> ByteBuffer? {
            do {
                return try await iterator.next()
            } catch let error as CancellationError {
                throw error
            } catch {
                throw ResourceError.unavailable("the transfer broke off: \(error)")
            }
        }
    }

    package func makeAsyncIterator() -> AsyncIterator { AsyncIterator(iterator: content.makeAsyncIterator()) }
}
