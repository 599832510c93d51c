package import Contracts

/// Queues in tests. Queues of the control plane must be used through their declarations in `Contracts`.
extension MessageQueue: ExpressibleByStringLiteral {
    package init(stringLiteral value: String) { self.init(value) }
}
