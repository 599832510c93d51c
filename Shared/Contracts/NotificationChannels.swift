package import Kernel

// Triggers of landed migrations contain channel names as text; a test compares them with these declarations.

extension NotificationChannel where Payload == Wake {
    /// New work for a service, or a change for which a workflow waits.
    package static var wake: Self { Self("wolke_wake") }
}

extension NotificationChannel where Payload == NoPayload {
    /// New rows in the outbox.
    package static var outbox: Self { Self("wolke_outbox") }
    /// Changes to be compiled to OVN; notified by triggers.
    package static var northbound: Self { Self("wolke_northbound") }
}

extension NotificationChannel where Payload == ChangedTable {
    /// A change of what tokens resolve to; notified by triggers.
    package static var identityChanged: Self { Self("identity_changed") }
}

extension NotificationChannel where Payload == ProviderChanges {
    /// Resource providers that schedulers must read again.
    package static var placementChanged: Self { Self("placement_changed") }
}

extension NotificationChannel where Payload == PeriodicTaskRequest {
    /// Requests all services to run their periodic tasks now. Its name is that of releases before 0.2.0.
    package static var periodicTasks: Self { Self("wolke_audit") }
}

extension NotificationChannel where Payload == PeriodicTaskAnswer {
    /// Services that have run their periodic tasks.
    package static var periodicTasksDone: Self { Self("wolke_audited") }
}

/// `SERVICE`, `SERVICE SUBJECT` or `SUBJECT`: a service with new work, optionally with the id of a subject whose workflow can
/// continue; or a subject alone, which concerns every service.
package struct Wake: NotificationPayload, Hashable {
    /// Nil for all services.
    package let service: String?
    /// Nil if no particular workflow is concerned.
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

    /// Whether the service must look for work.
    package func concerns(_ service: String) -> Bool { (self.service ?? service) == service }
}

/// The name of the table whose change a trigger reported.
package struct ChangedTable: NotificationPayload, Hashable {
    package let table: String

    package init?(payload: String) { table = payload }
    package var payload: String { table }
}

/// `ID`, or `ORIGIN ID…` from a process that has already applied the changes to its own memory.
package struct ProviderChanges: NotificationPayload, Hashable {
    /// The process that has already applied the changes in memory; nil if there is none.
    package let origin: String?
    /// Ids of resource providers; an empty list stands for all of them.
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

/// The id of a request, which each service repeats in its answer.
package struct PeriodicTaskRequest: NotificationPayload, Hashable {
    package let id: String

    package init(id: String) { self.id = id }
    package init?(payload: String) {
        guard !payload.isEmpty else { return nil }
        id = payload
    }
    package var payload: String { id }
}

/// `ID SERVICE`: the service has run its periodic tasks for this request.
package struct PeriodicTaskAnswer: NotificationPayload, Hashable {
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
