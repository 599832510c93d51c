/// The error type used across modules. Separates the message for the caller from the context for the log.
///
/// `message` goes into the response body and must name field, value and rule. `context` never leaves the log.
package struct ResourceError: Error, Sendable {
    /// The class of the error; the HTTP status follows from it alone.
    package enum Code: Int, Sendable {
        case badRequest = 400
        case unauthorized = 401
        case forbidden = 403
        case notFound = 404
        case methodNotAllowed = 405
        case notAcceptable = 406
        case requestTimeout = 408
        case conflict = 409
        case gone = 410
        case preconditionFailed = 412
        case tooLarge = 413
        case unsupportedMediaType = 415
        case rangeNotSatisfiable = 416
        case expectationFailed = 417
        case unprocessable = 422
        case tooManyRequests = 429
        case headersTooLarge = 431
        case internalError = 500
        case notImplemented = 501
        case unavailable = 503
    }

    package var code: Code
    package var message: String
    /// The service's own code for the error, where clients match on one: Networking's `type` (`IpAddressInUse`), Placement's
    /// `code` (`placement.concurrent_update`).
    package var type: String?
    /// For the log only.
    package var context: String?
    /// Seconds after which a retry is useful; sent as `Retry-After`.
    package var retryAfter: Int?

    package init(
        _ code: Code, _ message: String, type: String? = nil, context: String? = nil, retryAfter: Int? = nil
    ) {
        self.code = code
        self.message = message
        self.type = type
        self.context = context
        self.retryAfter = retryAfter
    }

    /// Whether the same request can succeed later without a change by the caller.
    package var isRetryable: Bool {
        switch code {
        case .tooManyRequests, .unavailable, .internalError, .requestTimeout: true
        case .badRequest, .unauthorized, .forbidden, .notFound, .methodNotAllowed, .notAcceptable, .conflict, .gone,
            .preconditionFailed, .tooLarge, .unsupportedMediaType, .rangeNotSatisfiable, .expectationFailed,
            .unprocessable, .headersTooLarge, .notImplemented:
            false
        }
    }

    /// 400; the caller sees `message`.
    package static func badRequest(_ message: String, type: String? = nil) -> ResourceError {
        ResourceError(.badRequest, message, type: type)
    }
    /// 404; the caller sees `message`.
    package static func notFound(_ message: String, type: String? = nil) -> ResourceError {
        ResourceError(.notFound, message, type: type)
    }
    /// 409; the caller sees `message`.
    package static func conflict(_ message: String, type: String? = nil) -> ResourceError {
        ResourceError(.conflict, message, type: type)
    }
    /// 403; the caller sees `message`.
    package static func forbidden(_ message: String, type: String? = nil) -> ResourceError {
        ResourceError(.forbidden, message, type: type)
    }
    /// 500; `context` goes to the log only.
    package static func internalError(_ context: String) -> ResourceError {
        ResourceError(.internalError, "An unexpected error occurred; the request id identifies it.", context: context)
    }
    /// 503 with `Retry-After: 1`; `context` goes to the log only.
    package static func unavailable(_ context: String) -> ResourceError {
        ResourceError(
            .unavailable, "The service is temporarily unable to answer; try again.", context: context, retryAfter: 1)
    }
}

/// A value that must not appear in logs, errors or descriptions.
package struct Secret<Value: Sendable>: Sendable, CustomStringConvertible, CustomDebugStringConvertible {
    /// The value itself; the name makes each use visible in review.
    package let exposed: Value

    package init(_ value: Value) { exposed = value }

    package var description: String { "<secret>" }
    package var debugDescription: String { "<secret>" }
}

/// Compares in constant time, so that timing does not reveal the position of the first difference.
package func constantTimeEqual(_ left: some Collection<UInt8>, _ right: some Collection<UInt8>) -> Bool {
    guard left.count == right.count else { return false }
    var difference: UInt8 = 0
    for (a, b) in zip(left, right) { difference |= a ^ b }
    return difference == 0
}
