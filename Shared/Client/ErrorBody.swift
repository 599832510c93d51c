import JSON
import Kernel

/// Parses the error bodies of all services; each OpenStack service has its own format.
enum ErrorBody {
    /// - Parameters:
    ///   - description: the request, for the log.
    ///   - body: at most the first `ClientLimits.errorBytesMax` bytes.
    static func error(status: Int, headers: RESTHeaders, body: [UInt8], description: String) -> ResourceError {
        let found = parse(body)
        let code = self.code(status)
        let request = headers.requestID.map { ", request \($0)" } ?? ""
        return ResourceError(
            code, found.message ?? "The service answered with status \(status).", type: found.type,
            context: "\(description) answered \(status)\(request)", retryAfter: headers["retry-after"].flatMap { Int($0) })
    }

    /// The closest error class; the context has the status.
    static func code(_ status: Int) -> ResourceError.Code {
        if let code = ResourceError.Code(rawValue: status) { return code }
        switch status {
        case 502, 504: return .unavailable
        case 500...: return .internalError
        default: return .badRequest
        }
    }

    private static func parse(_ body: [UInt8]) -> (message: String?, type: String?) {
        let json: JSONValue
        do throws(JSONParseError) { json = try JSONValue.parse(body) } catch { return (plainText(body), nil) }
        guard let object = json.objectValue else { return (nil, nil) }
        if let fault = object["NeutronError"] {
            guard fault.objectValue != nil else { return (fault.stringValue, nil) }
            let detail = fault["detail"]?.stringValue ?? ""
            let message = fault["message"]?.stringValue ?? ""
            return (detail.isEmpty ? message : message + " " + detail, fault["type"]?.stringValue)
        }
        if let first = object["errors"]?.arrayValue?.first {
            return (first["detail"]?.stringValue ?? first["title"]?.stringValue, first["code"]?.stringValue)
        }
        for name in ["message", "faultstring", "error_message"] {
            if let text = object[name]?.stringValue { return (text, nil) }
            if let text = object[name]?["faultstring"]?.stringValue { return (text, nil) }
        }
        // Compute, Block Storage and Identity: one member, named after the fault's class.
        for member in object.members {
            if let message = member.value["message"]?.stringValue { return (message, nil) }
        }
        return (nil, nil)
    }

    /// The text of a body that is not JSON, without HTML tags.
    private static func plainText(_ body: [UInt8]) -> String? {
        guard let text = String(validating: body.prefix(2000), as: UTF8.self) else { return nil }
        var plain = ""
        var inTag = false
        for character in text {
            switch character {
            case "<": inTag = true
            case ">" where inTag:
                inTag = false
                plain.append(" ")
            default: if !inTag { plain.append(character) }
            }
        }
        let words = plain.split(whereSeparator: \.isWhitespace)
        return words.isEmpty ? nil : words.prefix(60).joined(separator: " ")
    }
}
