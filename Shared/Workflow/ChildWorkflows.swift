import Database
import JSON
import Kernel

/// A workflow that a step started.
package struct ChildWorkflow: Sendable {
    /// The progress of the child.
    package enum State: Sendable, Hashable { case running, done, failed }

    package let subjectID: String
    package let state: State
    /// Why it failed, or unwinds.
    package let failure: String?
    private let result: JSONValue?

    fileprivate init(_ row: Row) throws {
        subjectID = try row.string("subject_id")
        state =
            switch try row.string("state") {
            case "done": .done
            case "failed": .failed
            default: .running
            }
        failure = try row.optionalString("failure")
        result = try row.optionalJSON("result")
    }

    /// The result that the child passed to `StepContext.finish(with:)`.
    ///
    /// - Throws: `WorkflowMismatch` if there is no result, or one of another type.
    package func result<Value: Decodable>(as type: Value.Type = Value.self) throws -> Value {
        let result = try result.recorded("a result of the child on \(subjectID)")
        do { return try result.decode(as: type) } catch let error as DecodingError {
            throw WorkflowMismatch("the result of the child on \(subjectID) cannot be read: \(error.summary)")
        }
    }
}

/// The children for which a step waits.
package enum ChildrenWait: Sendable {
    /// Waits until all have succeeded. If one fails, the others are cancelled and the step fails.
    case all
    /// Waits until the first has succeeded, then cancels the others and waits for their end. More than one may have
    /// succeeded.
    case first
}

extension Workflow.Step {
    /// A step that starts workflows of the same service and waits for them. When the workflow unwinds, running children are cancelled,
    /// which unwinds them, and `undo` is called when all have ended. Not for use in a workflow that retries forever.
    ///
    /// - Parameters:
    ///   - starts: the workflows to start, all in one transaction and each on its own subject. Called until they are started.
    ///   - collect: decides how to continue from the results of the children, in the order of `starts`.
    ///   - undo: reverts the effects of children that have succeeded.
    package static func children(
        _ name: String, deadline: Duration, wait: ChildrenWait = .all,
        starts: @escaping @Sendable (inout StepContext, inout Frame) async throws -> [WorkflowStart],
        collect: @escaping @Sendable (inout StepContext, inout Frame, [ChildWorkflow]) async throws -> StepResult = { _, _, _ in .next },
        undo: @escaping @Sendable (inout StepContext, inout Frame, [ChildWorkflow]) async throws -> Void = { _, _, _ in }
    ) -> Workflow.Step {
        var step = Workflow.Step(
            name, deadline: deadline,
            run: { context, frame in
                let children = try await context.children()
                guard !children.isEmpty else {
                    let starts = try await starts(&context, &frame)
                    if starts.isEmpty { return try await collect(&context, &frame, []) }
                    context.start(starts)
                    return .wait(StepContext.childrenPoll)
                }
                guard try await context.isSettled(children, wait) else { return .wait(StepContext.childrenPoll) }
                return try await collect(&context, &frame, children)
            },
            undo: { context, frame in
                let children = try await context.children()
                guard children.allSatisfy({ $0.state != .running }) else {
                    try await context.cancelChildren(context.failure ?? "The operation was cancelled.")
                    throw UndoWait(StepContext.childrenPoll)
                }
                try await undo(&context, &frame, children)
            })
        step.hasChildren = true
        return step
    }
}

extension StepContext {
    /// Fallback for a lost wake: normally a child's end wakes its parent.
    fileprivate static let childrenPoll: Duration = .seconds(20)

    /// Stores `value` as the workflow's result, for its parent.
    ///
    /// - Throws: `EncodingError` if it has no JSON form.
    package mutating func finish(with value: some Encodable) throws { result = try JSONValue(encoding: value) }

    /// Starts workflows in the transaction that records this step's outcome. Their ids depend on the step alone, so that a
    /// repetition starts nothing twice.
    fileprivate mutating func start(_ starts: [WorkflowStart]) {
        let (parent, step, requestID, ambient) = (workflowID.text, step, requestID, store.ambient)
        for (ordinal, start) in starts.enumerated() {
            let id = WorkflowID(operationUUID(ordinal))
            commit {
                // Only one workflow runs per subject; a workflow already in progress there ends first.
                try Workflows.lock($0, subject: start.subject)
                if try Workflows.isActive($0, subject: start.subject, otherThan: id) {
                    throw ResourceError.unavailable("another workflow is in progress on \(start.subject)")
                }
                try start.insert(
                    $0, id, parent: ParentStep(id: parent, step: step, ordinal: ordinal), requestID: requestID, ambient: ambient)
            }
        }
    }

    /// The children that this step has started, in that order.
    fileprivate func children() async throws -> [ChildWorkflow] {
        let (parent, step) = (workflowID, step)
        return try await store.database.read { connection in
            try connection.query(
                """
                SELECT subject_id, state, result, frame->\(WorkflowEngine.failureKey)->>'message' AS failure FROM workflows
                WHERE parent_id = \(parent)::uuid AND parent_step = \(step) ORDER BY parent_ordinal
                """
            ).map(ChildWorkflow.init)
        }
    }

    fileprivate func isSettled(_ children: [ChildWorkflow], _ wait: ChildrenWait) async throws -> Bool {
        let isOver = children.allSatisfy { $0.state != .running }
        switch wait {
        case .all:
            if let failed = children.first(where: { $0.state == .failed }) {
                throw StepFailure(failed.failure ?? "A part of the operation failed.")
            }
            return isOver
        case .first:
            if children.contains(where: { $0.state == .done }) {
                if !isOver { try await cancelChildren("Another child finished first.") }
                return isOver
            }
            if isOver { throw StepFailure(children.first?.failure ?? "All parts of the operation failed.") }
            return false
        }
    }

    /// Tells running children to unwind.
    fileprivate func cancelChildren(_ reason: String) async throws {
        let (parent, step, service) = (workflowID, step, store.service)
        try await store.database.write { connection in
            let rows = try connection.query(
                """
                UPDATE workflows SET cancel_reason = \(reason) WHERE parent_id = \(parent)::uuid AND parent_step = \(step)
                AND finished_at IS NULL AND cancel_reason IS NULL RETURNING subject_id
                """)
            for row in rows { Workflows.wake(connection, service: service, subject: try row.string("subject_id")) }
        }
    }
}
