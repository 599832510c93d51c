package import Kernel

/// An error of PostgreSQL.
package struct DatabaseError: Error, Sendable, CustomStringConvertible {
    /// The five-character SQLSTATE; `08006` where the connection broke before there was an answer.
    package let sqlState: String
    package let message: String
    package let constraint: String?
    package let table: String?
    package let statement: String?
    /// The connection broke while COMMIT was under way: the transaction may or may not have happened.
    package var commitUnknown = false
    /// For a refused value: the texts bound to the statement, only the refused one if PostgreSQL names it. They come from clients, so they
    /// are not part of the description.
    package var inputs: [String] = []

    /// The connection broke during COMMIT; thrown by the simulation.
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
    /// The statement was cancelled: by its time limit, or because its client disconnected.
    package var isStopped: Bool { sqlState == "57014" || sqlState == "25P03" }
    /// A lock could not be acquired within its time limit.
    package var isLockTimeout: Bool { sqlState == "55P03" }
    /// PostgreSQL refused an external value (SQLSTATE class 22, data exceptions), such as a malformed uuid or a number out of range. Does
    /// not include a division by zero or a null, which can only be caused by our own statements.
    package var isRefusedInput: Bool { sqlState.hasPrefix("22") && !["22012", "22004", "22002", "22000"].contains(sqlState) }
    /// A text contains the character NUL, which PostgreSQL cannot store; in a JSON document as `\u0000`.
    package var isNUL: Bool { sqlState == "22P05" || sqlState == "22021" }

    static func stopped(_ message: String) -> DatabaseError {
        DatabaseError(sqlState: "57014", message: message, constraint: nil, table: nil, statement: nil)
    }

    /// A text with the character NUL, found before it is sent.
    static func nul(in text: String, _ statement: String) -> DatabaseError {
        DatabaseError(
            sqlState: "22021", message: "a text contains the character NUL", constraint: nil, table: nil, statement: statement,
            inputs: [text])
    }

    /// The rule that a refused value violates.
    package var inputRule: String {
        switch sqlState {
        case "22P05", "22021": "It must not contain the character NUL."
        case "22001": "It is longer than what can be stored."
        case "22003": "It is outside the range of numbers that can be stored."
        case "22007", "22008", "22009": "It is not a date and time that can be stored."
        case "22P02", "22P03": "It does not have the form of a value of its type."
        case "2201B": "It is not a valid regular expression."
        case "22019", "22025": "It ends in an escape character."
        default: "It cannot be stored or compared."
        }
    }

    /// The error as the caller of an API sees it: 503 while the database is unavailable or if it took too long, 400 for a value that
    /// PostgreSQL refuses, otherwise 500.
    package var resourceError: ResourceError {
        if isRefusedInput {
            return ResourceError(.badRequest, isNUL ? inputRule : "Invalid value in the request. \(inputRule)", context: description)
        }
        if isStopped {
            return ResourceError(
                .unavailable, "The request exceeded the time limit and was cancelled. Request less data at a time, or try again.",
                context: description, retryAfter: 5)
        }
        if isLockTimeout {
            return ResourceError(
                .unavailable, "Another change of the same resources is in progress and did not finish in time; try again.",
                context: description, retryAfter: 2)
        }
        return isConnectionFailure || isRetryable ? .unavailable(description) : .internalError(description)
    }
}
