import Kernel

/// What PostgreSQL answered instead of a result.
package struct DatabaseError: Error, Sendable, CustomStringConvertible {
    /// The five-character SQLSTATE; `08006` where the connection broke before there was an answer.
    package let sqlState: String
    package let message: String
    package let constraint: String?
    package let table: String?
    package let statement: String?
    /// The connection broke while COMMIT was under way: the transaction may or may not have happened.
    package var commitUnknown = false

    /// The connection broke while COMMIT was under way, as simulation tells it.
    package static let lostCommit = DatabaseError(
        sqlState: "08006", message: "the session was closed", constraint: nil, table: nil, statement: "COMMIT",
        commitUnknown: true)

    package var description: String {
        "SQLSTATE \(sqlState): \(message)" + (constraint.map { " (constraint \($0))" } ?? "")
            + (statement.map { " in: \($0.prefix(400))" } ?? "")
    }

    package var isUniqueViolation: Bool { sqlState == "23505" }
    package var isForeignKeyViolation: Bool { sqlState == "23503" }
    package var isCheckViolation: Bool { sqlState == "23514" }
    package var isExclusionViolation: Bool { sqlState == "23P01" }
    /// A serialization failure or a deadlock: the same transaction can succeed when run again.
    package var isRetryable: Bool { sqlState == "40001" || sqlState == "40P01" }
    /// The server is gone, starting or shutting down.
    package var isConnectionFailure: Bool {
        sqlState.hasPrefix("08") || sqlState.hasPrefix("57P") || sqlState == "53300"
    }
    /// The statement was stopped: by its time limit, or because nobody waits for it any more.
    package var isStopped: Bool { sqlState == "57014" || sqlState == "25P03" }
    /// A lock was not to be had within its time limit.
    package var isLockTimeout: Bool { sqlState == "55P03" }
    /// The text of an input did not fit its type, for instance a malformed uuid.
    package var isInvalidText: Bool { sqlState == "22P02" || sqlState == "22007" || sqlState == "22008" }

    static func stopped(_ message: String) -> DatabaseError {
        DatabaseError(sqlState: "57014", message: message, constraint: nil, table: nil, statement: nil)
    }

    /// A text with the character NUL.
    static let unstorable = ResourceError.badRequest("A text contains the character NUL, which cannot be stored.")

    /// The error as the caller of an API sees it: 503 while the database is away or where it took too long, 400 for a text that PostgreSQL cannot
    /// keep (22P05 and 22021: NUL, also as `\u0000` in a JSON document), otherwise 500.
    package var resourceError: ResourceError {
        if sqlState == "22P05" || sqlState == "22021" { return DatabaseError.unstorable }
        if isStopped {
            return ResourceError(
                .unavailable, "The request took longer than one request may, and was stopped. Ask for less at a time, or try again.",
                context: description, retryAfter: 5)
        }
        if isLockTimeout {
            return ResourceError(
                .unavailable, "Another change of the same resources is under way and did not end in time; try again.",
                context: description, retryAfter: 2)
        }
        return isConnectionFailure || isRetryable ? .unavailable(description) : .internalError(description)
    }
}
