import Contracts

/// Queues of tests. The plane's queues are declared in `Contracts` and have no other spelling.
extension MessageQueue: ExpressibleByStringLiteral {
    package init(stringLiteral value: String) { self.init(value) }
}
