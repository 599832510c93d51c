import JSON
package import Kernel
package import ServiceCatalog

/// How a service writes an error body; each OpenStack service has its own.
extension FaultStyle {
    /// The response for an error. The body never holds `context`.
    ///
    /// - Parameter accept: the request's `Accept`. Image uses the preferred media type, as Glance (WebOb) does.
    package func response(
        _ error: ResourceError, requestID: String, versions: VersionNegotiation?, accept: String? = nil
    ) -> Response {
        var response: Response
        let form = self == .image && error.code != .unauthorized ? FaultForm(accept: accept) : .json
        switch form {
        case .json: response = .json(error.code.rawValue, body(error, requestID: requestID, versions: versions))
        case .html, .plain: response = FaultStyle.text(error, form)
        }
        if let seconds = error.retryAfter { response.headers["retry-after"] = String(seconds) }
        return response
    }

    /// The HTML page or text of an error, in WebOb's format.
    private static func text(_ error: ResourceError, _ form: FaultForm) -> Response {
        let status = "\(error.code.rawValue) \(title(error.code))"
        let text: String
        if form == .html {
            let message = error.message.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
                .replacing("\"", with: "&#34;").replacing("'", with: "&#39;")
            text = """
                <html>
                 <head>
                  <title>\(status)</title>
                 </head>
                 <body>
                  <h1>\(status)</h1>
                  \(message)<br /><br />



                 </body>
                </html>
                """
        } else {
            text = "\(status)\n\n\(error.message)\n\n   "
        }
        return Response(
            status: error.code.rawValue,
            headers: ["content-type": form == .html ? "text/html; charset=UTF-8" : "text/plain; charset=UTF-8"],
            body: .bytes(Array(text.utf8)))
    }

    private func body(_ error: ResourceError, requestID: String, versions: VersionNegotiation?) -> JSONValue {
        let code = JSONValue(error.code.rawValue)
        // The response of keystonemiddleware, which is the same for every service.
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
        case .bareMetal:
            // A JSON document inside a string, as in all versions of Ironic.
            let fault: JSONValue = [
                "faultcode": error.code.rawValue < 500 ? "Client" : "Server", "faultstring": .string(error.message), "debuginfo": nil,
            ]
            return ["error_message": .string(fault.description)]
        case .image:
            return [
                "message": .string(error.message), "code": .string("\(error.code.rawValue) \(FaultStyle.title(error.code))"),
                "title": .string(FaultStyle.title(error.code)),
            ]
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

    /// The names of WebOb's exceptions, which Neutron uses if it has no name of its own.
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

/// The media type that a client prefers for an error (RFC 9110, 12.5.1), of the three that WebOb supports.
enum FaultForm: Sendable, Hashable {
    case html, json, plain

    /// HTML or JSON by their weights, HTML if they are equal; text if neither is accepted. An empty field expresses no preference.
    init(accept: String?) {
        if let accept, accept.allSatisfy(\.isWhitespace) {
            self = .html
            return
        }
        var best = (form: FaultForm.plain, weight: 0.0)
        for (form, type, group) in [(FaultForm.html, "text/html", "text/*"), (.json, "application/json", "application/*")] {
            let weight = FaultForm.weight(of: type, group: group, in: accept ?? "")
            if weight > best.weight { best = (form, weight) }
        }
        self = best.form
    }

    /// The weight that the most specific range gives to a type.
    private static func weight(of type: String, group: String, in accept: String) -> Double {
        var found = (rank: 0, weight: 0.0)
        for range in accept.split(separator: ",") {
            let parts = range.split(separator: ";").map { $0.filter { !$0.isWhitespace }.lowercased() }
            guard let name = parts.first, let place = ["*/*", group, type].firstIndex(of: name), place + 1 > found.rank else { continue }
            let quality = parts.dropFirst().first { $0.hasPrefix("q=") }.map { $0.dropFirst(2) }
            found = (place + 1, quality.map { Double($0) ?? 0 } ?? 1)
        }
        return found.weight
    }
}
