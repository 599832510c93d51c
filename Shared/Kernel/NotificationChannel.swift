/// The payload of a notification: a text of less than 8000 bytes (PostgreSQL's limit).
package protocol NotificationPayload: Sendable {
    /// Nil if the text is not a valid payload.
    init?(payload: String)
    /// The text that is sent.
    var payload: String { get }
}

/// A channel of PostgreSQL's `NOTIFY` with the type of its payload. The module `Contracts` declares the names.
package struct NotificationChannel<Payload: NotificationPayload>: Sendable, Hashable {
    package let name: String

    package init(_ name: String) { self.name = name }
}

/// The payload of channels that only signal that something has changed.
package struct NoPayload: NotificationPayload, Hashable {
    package init() {}
    package init?(payload: String) {}
    package var payload: String { "" }
}
