import Kernel

// Names that triggers of landed migrations notify are text there; a test compares them with these.

extension NotificationChannel where Payload == Wake {
    /// Work for a service, or news for a workflow that waits.
    package static var wake: Self { Self("wolke_wake") }
}

extension NotificationChannel where Payload == NoPayload {
    /// New rows in the outbox.
    package static var outbox: Self { Self("wolke_outbox") }
    /// Changes to be compiled into OVN; notified by triggers.
    package static var northbound: Self { Self("wolke_northbound") }
}

extension NotificationChannel where Payload == ChangedTable {
    /// What tokens resolve to has changed; notified by triggers.
    package static var identityChanged: Self { Self("identity_changed") }
}

extension NotificationChannel where Payload == ProviderChanges {
    /// Resource providers that schedulers have to read again.
    package static var placementChanged: Self { Self("placement_changed") }
}

extension NotificationChannel where Payload == AuditQuestion {
    /// Asks all services to run their audits now.
    package static var audit: Self { Self("wolke_audit") }
}

extension NotificationChannel where Payload == AuditAnswer {
    /// Services that have run their audit.
    package static var audited: Self { Self("wolke_audited") }
}

/// `SERVICE`, `SERVICE SUBJECT` or `SUBJECT`: a service with something new to run, with the id of a subject whose workflow
/// shall go on, or a subject alone, which concerns every service.
package struct Wake: NotificationPayload, Hashable {
    /// Nil for all services.
    package let service: String?
    /// Nil where no workflow waits for this.
    package let subject: String?

    package init(service: String, subject: String? = nil) {
        self.service = service
        self.subject = subject
    }

    /// Concerns every service.
    package init(subject: String) {
        service = nil
        self.subject = subject
    }

    package init?(payload: String) {
        let words = payload.split(separator: " ", maxSplits: 1).map(String.init)
        let isSubject = words.last.map { UUID128($0) != nil } ?? false
        service = words.count == 2 || !isSubject ? words.first : nil
        subject = isSubject ? words.last : nil
    }

    package var payload: String { [service, subject].compactMap { $0 }.joined(separator: " ") }

    /// Whether the service has to look.
    package func concerns(_ service: String) -> Bool { (self.service ?? service) == service }
}

/// The name of the table that a trigger saw change.
package struct ChangedTable: NotificationPayload, Hashable {
    package let table: String

    package init?(payload: String) { table = payload }
    package var payload: String { table }
}

/// `ID`, or `ORIGIN ID…` from a process that has made the changes itself.
package struct ProviderChanges: NotificationPayload, Hashable {
    /// The process whose own memory has the changes; nil where none has.
    package let origin: String?
    /// Ids of resource providers; an empty one stands for all of them.
    package let providers: [String]

    package init(_ provider: String) {
        origin = nil
        providers = [provider]
    }

    package init(origin: String, providers: [String]) {
        self.origin = origin
        self.providers = providers
    }

    package init?(payload: String) {
        let words = payload.split(separator: " ").map(String.init)
        if words.count < 2 { self.init(payload) } else { self.init(origin: words[0], providers: Array(words.dropFirst())) }
    }

    package var payload: String { ([origin].compactMap { $0 } + providers).joined(separator: " ") }
}

/// The id of a question that each audit answers.
package struct AuditQuestion: NotificationPayload, Hashable {
    package let id: String

    package init(id: String) { self.id = id }
    package init?(payload: String) {
        guard !payload.isEmpty else { return nil }
        id = payload
    }
    package var payload: String { id }
}

/// `ID SERVICE`: the service has run its audit because of the question.
package struct AuditAnswer: NotificationPayload, Hashable {
    package let question: String
    package let service: String

    package init(question: String, service: String) {
        self.question = question
        self.service = service
    }

    package init?(payload: String) {
        let words = payload.split(separator: " ").map(String.init)
        guard words.count == 2 else { return nil }
        (question, service) = (words[0], words[1])
    }

    package var payload: String { "\(question) \(service)" }
}
