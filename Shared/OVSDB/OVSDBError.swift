/// Errors of OVSDB sessions and requests.
package enum OVSDBError: Error, Sendable, Hashable {
    /// There is no session with the server; nothing was sent.
    case notConnected
    /// The session ended before the answer: whether a transaction took effect is unknown.
    case disconnected(String)
    /// No answer arrived in time.
    case timedOut
    /// The server refused a request.
    case refused(String)
    /// An operation of a transaction failed, and nothing of the transaction took effect. `operation` counts from 0; it equals the
    /// number of operations if the commit itself failed.
    case transaction(operation: Int, error: String, details: String)
    /// The server violated RFC 7047.
    case protocolViolation(String)
    /// An endpoint, table or value of the caller is invalid.
    case invalid(String)

    /// Whether the error is temporary: the same request may succeed later.
    package var isPassing: Bool {
        switch self {
        case .notConnected, .disconnected, .timedOut: true
        case .transaction(_, let error, _): error == "not owner" || error == "timed out" || error == "cluster error"
        case .refused, .protocolViolation, .invalid: false
        }
    }
}

/// Limits of the client.
package enum OVSDBLimits {
    /// Largest message from the server, in bytes; the initial contents of a large database are one message.
    package static let messageBytesMax = 512 << 20
    /// Operations in one transaction.
    package static let operationsMax = 10_000
    /// Concurrent requests waiting for answers.
    package static let requestsPendingMax = 1_024
    /// Nesting depth of a message.
    package static let depthMax = 16
    /// Row changes buffered for a slow reader; beyond this it gets a full resynchronization.
    package static let changesPendingMax = 200_000
}
