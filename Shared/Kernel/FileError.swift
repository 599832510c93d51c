import Glibc

/// A file operation that failed.
package struct FileError: Error, Sendable, CustomStringConvertible {
    /// The failed operation, as in "cannot OPERATION PATH".
    package let operation: String
    package let path: String
    /// The error number (errno.h).
    package let number: Int32

    package init(operation: String, path: String, number: Int32) {
        self.operation = operation
        self.path = path
        self.number = number
    }

    /// The error of the last failed call of this thread.
    package static func last(_ operation: String, _ path: String) -> FileError {
        FileError(operation: operation, path: path, number: errno)
    }

    /// Whether the disk is full.
    package var isNoSpace: Bool { number == ENOSPC || number == EDQUOT }

    package var description: String { "cannot \(operation) \(path): \(String(cString: strerror(number)))" }
}
