package import Contracts
package import JSON
import Kernel

/// A desired state that this agent cannot decode.
package struct UnreadableServer: Sendable, Hashable {
    package let document: JSONValue
    package let error: FormError

    package init(document: JSONValue, error: FormError) {
        self.document = document
        self.error = error
    }

    /// Nil if the document does not say which server it is about.
    package var serverID: String? { document["id"]?.stringValue.flatMap { UUID128($0) }?.description }

    /// The report to the control plane. A report needs a generation; for a document without one it is nil, and the control plane stops
    /// waiting at its deadline.
    ///
    /// - Parameter record: the host's record of the server.
    package func report(host: String, record: LocalServerRecord?) -> ObservedReport? {
        guard let serverID, let generation = document["generation"]?.intValue, generation > 0,
            let epoch = document["epoch"]?.intValue ?? record?.highestEpoch
        else { return nil }
        return ObservedReport(
            host: host, serverID: serverID, generation: generation, epoch: epoch,
            power: record?.appliedPower.map { ReportedPower($0) } ?? .absent, state: .failed,
            error: "the host cannot read the server's definition: \(error)", permanent: true)
    }
}
