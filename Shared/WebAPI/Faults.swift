import JSON
import Kernel

/// How a service writes an error body; each OpenStack service has its own.
package enum FaultStyle: Sendable {
    case compute, blockStorage, network, identity, image, placement

    /// The response for an error. The body never holds `context`.
    package func response(_ error: ResourceError, requestID: String, versions: VersionNegotiation?) -> Response {
        var response = Response.json(error.code.rawValue, body(error, requestID: requestID, versions: versions))
        if let seconds = error.retryAfter { response.headers["retry-after"] = String(seconds) }
        return response
    }

    private func body(_ error: ResourceError, requestID: String, versions: VersionNegotiation?) -> JSONValue {
        let code = JSONValue(error.code.rawValue)
        // What keystonemiddleware answers for every service.
        if error.code == .unauthorized || self == .identity {
            return ["error": ["code": code, "title": .string(FaultStyle.title(error.code)), "message": .string(error.message)]]
        }
        switch self {
        case .compute, .blockStorage:
            var members: JSONObject = ["code": code, "message": .string(error.message)]
            if error.code == .notAcceptable, let versions {
                members["min_version"] = .string(versions.minimum.description)
                members["max_version"] = .string(versions.maximum.description)
            }
            return .object(JSONObject([(faultKey(error.code), .object(members))]))
        case .network:
            return [
                "NeutronError": [
                    "type": .string(error.type ?? FaultStyle.networkType(error.code)),
                    "message": .string(error.message), "detail": "",
                ]
            ]
        case .image:
            return ["message": .string(error.message), "code": .string("\(error.code.rawValue) \(FaultStyle.title(error.code))"), "title": .string(FaultStyle.title(error.code))]
        case .placement, .identity:
            var members: JSONObject = [
                "status": code, "title": .string(FaultStyle.title(error.code)), "detail": .string(error.message),
                "code": .string(error.type ?? "placement.undefined_code"), "request_id": .string(requestID),
            ]
            if error.code == .notAcceptable, let versions {
                members["min_version"] = .string(versions.minimum.description)
                members["max_version"] = .string(versions.maximum.description)
            }
            return ["errors": [.object(members)]]
        }
    }

    private func faultKey(_ code: ResourceError.Code) -> String {
        switch code {
        case .badRequest: "badRequest"
        case .unauthorized: "unauthorized"
        case .forbidden: "forbidden"
        case .notFound: "itemNotFound"
        case .methodNotAllowed: "badMethod"
        case .conflict: "conflictingRequest"
        case .tooLarge, .tooManyRequests: "overLimit"
        case .unsupportedMediaType: "badMediaType"
        case .notImplemented: "notImplemented"
        case .unavailable: "serviceUnavailable"
        case .notAcceptable: "notAcceptable"
        default: self == .blockStorage ? "volumeFault" : "computeFault"
        }
    }

    /// The names of WebOb's exceptions, which are what Neutron answers where it has no name of its own.
    private static func networkType(_ code: ResourceError.Code) -> String {
        switch code {
        case .badRequest: "HTTPBadRequest"
        case .forbidden: "PolicyNotAuthorized"
        case .notFound: "HTTPNotFound"
        case .conflict: "HTTPConflict"
        case .preconditionFailed: "RevisionNumberConstraintFailed"
        case .unauthorized: "HTTPUnauthorized"
        case .methodNotAllowed: "HTTPMethodNotAllowed"
        case .notAcceptable: "HTTPNotAcceptable"
        case .requestTimeout: "HTTPRequestTimeout"
        case .gone: "HTTPGone"
        case .tooLarge: "HTTPRequestEntityTooLarge"
        case .unsupportedMediaType: "HTTPUnsupportedMediaType"
        case .rangeNotSatisfiable: "HTTPRequestRangeNotSatisfiable"
        case .expectationFailed: "HTTPExpectationFailed"
        case .unprocessable: "HTTPUnprocessableEntity"
        case .tooManyRequests: "HTTPTooManyRequests"
        case .headersTooLarge: "HTTPRequestHeaderFieldsTooLarge"
        case .internalError: "HTTPInternalServerError"
        case .notImplemented: "HTTPNotImplemented"
        case .unavailable: "HTTPServiceUnavailable"
        }
    }

    package static func title(_ code: ResourceError.Code) -> String {
        switch code {
        case .badRequest: "Bad Request"
        case .unauthorized: "Unauthorized"
        case .forbidden: "Forbidden"
        case .notFound: "Not Found"
        case .methodNotAllowed: "Method Not Allowed"
        case .notAcceptable: "Not Acceptable"
        case .requestTimeout: "Request Timeout"
        case .conflict: "Conflict"
        case .gone: "Gone"
        case .preconditionFailed: "Precondition Failed"
        case .tooLarge: "Request Entity Too Large"
        case .unsupportedMediaType: "Unsupported Media Type"
        case .rangeNotSatisfiable: "Requested Range Not Satisfiable"
        case .expectationFailed: "Expectation Failed"
        case .unprocessable: "Unprocessable Entity"
        case .tooManyRequests: "Too Many Requests"
        case .headersTooLarge: "Request Header Fields Too Large"
        case .internalError: "Internal Server Error"
        case .notImplemented: "Not Implemented"
        case .unavailable: "Service Unavailable"
        }
    }
}
