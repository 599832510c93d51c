import JSON
import Kernel

/// The results that clients were promised.
final class History: @unchecked Sendable {
    struct CreatedResource {
        let project: String
        let service: String
        /// The path of the collection.
        let path: String
        let name: String
        let id: String
        var deleteAccepted = false
    }

    /// By kind and id: `server`, `volume`, `port`, `floatingip`, `security_group`.
    private(set) var resources: [String: [String: CreatedResource]] = [:]
    /// Resources whose deletion was requested: reads may or may not find them.
    private(set) var doomed: Set<String> = []
    private var deletions: [String: Int] = [:]
    private(set) var accepted = 0
    /// The policy action and resource of required audit records.
    private(set) var audited: [(action: String, resource: String)] = []

    func recordCreated(_ kind: String, _ resource: CreatedResource) { resources[kind, default: [:]][resource.id] = resource }

    func deleting(_ kind: String, _ id: String) { resources[kind]?[id]?.deleteAccepted = true }

    /// A tenant requests the deletion of `id`.
    func ask(toDelete id: String) {
        doomed.insert(id)
        deletions[id, default: 0] += 1
    }

    /// Whether there was only one request so far, so that no other one can have deleted it.
    func isAsked(once id: String) -> Bool { deletions[id] == 1 }

    func accept(_ action: String, _ resource: String) {
        accepted += 1
        audited.append((action, resource))
    }

    func all(_ kind: String) -> [CreatedResource] { (resources[kind] ?? [:]).values.sorted { $0.id < $1.id } }

    /// The existing resources according to the responses to the project.
    func living(_ kind: String, _ project: String) -> [String] {
        all(kind).filter { $0.project == project && !$0.deleteAccepted }.map(\.id)
    }
}
