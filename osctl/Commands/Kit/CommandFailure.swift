import Client
import Foundation
import Kernel

/// An error message with advice, for the user.
struct CommandFailure: Error, Sendable, CustomStringConvertible, LocalizedError {
    let message: String
    let hint: String?

    init(_ message: String, hint: String? = nil) {
        self.message = message
        self.hint = hint
    }

    var description: String { hint.map { message + "\n" + $0 } ?? message }
    var errorDescription: String? { description }

    /// An error of a service or of the client, with advice if there is any.
    ///
    /// - Parameters:
    ///   - source: the source of the cloud's values.
    ///   - showsContext: whether to add request, status and request id.
    init(_ error: ResourceError, source: String, showsContext: Bool) {
        var message = error.message
        var hint: String?
        switch error.type {
        case ClientErrorType.unreachable:
            message = "No answer: " + (error.context ?? error.message)
            hint = "The address comes from \(source). Is the cloud up? On its machine: osctl status"
        case ClientErrorType.signOnRefused:
            hint = "Identity refused the user, password or project of \(source)."
        case ClientErrorType.noIdentity:
            hint = "Check auth_url of \(source)."
        case ClientErrorType.noEndpoint:
            hint = "See: osctl catalog list"
        default: hint = CommandFailure.advice(error)
        }
        let needsContext = showsContext || error.code.rawValue >= 500
        if needsContext, error.type != ClientErrorType.unreachable, let context = error.context { message += "\n(\(context))" }
        self.init(message, hint: hint)
    }

    private static func advice(_ error: ResourceError) -> String? {
        let text = error.message.lowercased()
        switch error.code {
        case .unauthorized: return "The token was refused; try again with --no-cache, and check the credentials."
        case .forbidden where text.contains("quota"), .conflict where text.contains("quota"), .tooLarge where text.contains("quota"):
            return "See what is used: osctl quota usage"
        case .forbidden: return "Your roles don't allow this; `osctl token show` shows them."
        case .notAcceptable: return "This cloud does not support the API version that osctl needs."
        case .unavailable, .internalError: return "A retry may help; search the service's log for the request id."
        default: return nil
        }
    }
}
