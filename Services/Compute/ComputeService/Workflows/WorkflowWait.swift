import Database
import JSON
import Kernel
import Workflow

extension Compute {
    /// Waits until a workflow has completed its first steps, for requests whose response needs their results.
    ///
    /// - Parameters:
    ///   - steps: the steps to wait for.
    /// - Throws: the reason why the workflow unwinds; 503 if it takes too long, in which case the workflow continues.
    func await(workflow: WorkflowID, past steps: Set<String>, timeout: Duration = .seconds(30)) async throws {
        let deadline = ambient.deadline(in: timeout)
        while true {
            guard let progress = try await database.read({ try Workflows.progress($0, workflow) }), !progress.isDone else { return }
            if let failure = progress.failure { throw ResourceError.badRequest(failure) }
            if !steps.contains(progress.step) { return }
            guard ambient.time.monotonicNanoseconds() < deadline else {
                throw ResourceError.unavailable("workflow \(workflow) is still at \(progress.step)")
            }
            try await ambient.time.sleep(for: .milliseconds(30))
        }
    }
}

extension Compute {
    /// Waits until the host has applied a generation, or the server was deleted.
    ///
    /// - Parameter what: the changed part of the server, for the failure's message.
    /// - Throws: `StepFailure` if the host reports a permanent failure.
    func awaitApplied(_ wanted: Int, server id: String, what: String) async throws -> StepResult {
        guard let server = try await database.read({ try WorkflowServer.load($0, id) }) else { return .done }
        if let failure = server.hostFailure(of: wanted), failure.isPermanent {
            throw failure.failure("The host could not change the server's \(what)")
        }
        let isDone = server.host == nil || (server.observedGeneration >= wanted && server.observedState == "applied")
        return isDone ? .next : .wait(.milliseconds(500))
    }

    /// Finishes the record of an action, as success or error.
    func finish(_ action: String, server: String, error: StepFailure? = nil) async throws {
        let now = ambient.now
        try await database.write { connection in
            try ServerActions.finish(connection, server: server, action: action, failure: error, now: now)
        }
    }
}
