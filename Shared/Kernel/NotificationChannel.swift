/// The payload of a notification: a text of less than 8000 bytes (PostgreSQL's limit).
package protocol NotificationPayload: Sendable {
    /// Nil for a text that does not have the form.
    init?(payload: String)
    /// The text that is sent.
    var payload: String { get }
}

/// A channel of PostgreSQL's `NOTIFY`, with the type of what is said on it. The names are in the module `Contracts`.
package struct NotificationChannel<Payload: NotificationPayload>: Sendable, Hashable {
    package let name: String

    package init(_ name: String) { self.name = name }
}

/// On channels that only say that something has changed.
package struct NoPayload: NotificationPayload, Hashable {
    package init() {}
    package init?(payload: String) {}
    package var payload: String { "" }
}
