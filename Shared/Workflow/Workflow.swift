import Database
import JSON
import Kernel

/// The parameters of a workflow that has none.
package struct NoFrame: Codable, Sendable {
    package init() {}
}

/// A long operation with its parameters and results: `Frame` is stored with the workflow, including the changes that steps make to it.
///
/// `Frame`'s stored form, and the names and order of the steps, belong to a version of the kind. A change of them requires a new `version`;
/// `alsoRuns` lists earlier versions that the new steps can continue. If they cannot, the earlier definition is kept in addition for one
/// release. Replicas of the previous release do not touch versions that they do not know.
package struct Workflow<Frame: Codable & Sendable>: Sendable {
    package let definition: WorkflowDefinition

    /// One step, with typed access to the frame.
    package struct Step: Sendable {
        let erased: WorkflowStep
        /// Whether it starts other workflows.
        var hasChildren = false

        /// - Parameters:
        ///   - deadline: how long it may take, including repetitions and waits. `isLate` tells its undo that this time has passed.
        ///   - undo: reverts what `run` did or may have done; succeeds if there is nothing to revert.
        package init(
            _ name: String, deadline: Duration = .seconds(120),
            run: @escaping @Sendable (inout StepContext, inout Frame) async throws -> StepResult,
            undo: (@Sendable (inout StepContext, inout Frame) async throws -> Void)? = nil
        ) {
            var erasedUndo: (@Sendable (inout StepContext) async throws -> Void)?
            if let undo { erasedUndo = { context in try await context.with(frame: Frame.self, undo) } }
            erased = WorkflowStep(
                name, deadline: deadline, run: { context in try await context.with(frame: Frame.self, run) }, undo: erasedUndo)
        }
    }

    /// - Parameters:
    ///   - version: the version of new workflows.
    ///   - alsoRuns: earlier versions that the same steps can continue.
    ///   - failed: records the failure on the subject, after everything is unwound; safe to repeat.
    package init(
        service: String, kind: String, version: Int = 1, alsoRuns: Set<Int> = [], steps: [Step],
        interruptedBy: Set<String> = [], retriesForever: Bool = false,
        failed: @escaping @Sendable (StepContext, Frame, StepFailure) async throws -> Void
    ) {
        precondition(
            !retriesForever || !steps.contains(where: \.hasChildren),
            "\(kind) retries forever and has children: a child's failure is permanent, so the step could never complete")
        definition = WorkflowDefinition(
            service: service, kind: kind, version: version, versions: alsoRuns.union([version]),
            steps: steps.map(\.erased), interruptedBy: interruptedBy, retriesForever: retriesForever,
            failed: { context, failure in
                try await failed(context, WorkflowDefinition.decode(context.frame), failure)
            },
            recode: { frame in
                let value = try JSONValue.object(frame).decode(as: Frame.self)
                let names = Mirror(reflecting: value).children.compactMap(\.label)
                return (try JSONValue(encoding: value).objectValue ?? [:], names)
            })
    }
}

extension Workflow where Frame == NoFrame {
    /// A workflow without parameters.
    package init(
        service: String, kind: String, version: Int = 1, alsoRuns: Set<Int> = [], steps: [Step],
        interruptedBy: Set<String> = [], retriesForever: Bool = false,
        failed: @escaping @Sendable (StepContext, StepFailure) async throws -> Void
    ) {
        self.init(
            service: service, kind: kind, version: version, alsoRuns: alsoRuns, steps: steps, interruptedBy: interruptedBy,
            retriesForever: retriesForever, failed: { context, _, failure in try await failed(context, failure) })
    }
}

extension Workflow.Step where Frame == NoFrame {
    /// A step of a workflow without parameters.
    package init(
        _ name: String, deadline: Duration = .seconds(120),
        run: @escaping @Sendable (inout StepContext) async throws -> StepResult,
        undo: (@Sendable (inout StepContext) async throws -> Void)? = nil
    ) {
        var undoing: (@Sendable (inout StepContext, inout NoFrame) async throws -> Void)?
        if let undo { undoing = { context, _ in try await undo(&context) } }
        self.init(name, deadline: deadline, run: { context, _ in try await run(&context) }, undo: undoing)
    }
}

extension WorkflowDefinition {
    static func decode<Frame: Codable & Sendable>(_ frame: JSONObject) throws -> Frame {
        do {
            return try JSONValue.object(frame).decode(as: Frame.self)
        } catch let error as DecodingError {
            throw WorkflowMismatch("its parameters cannot be read: \(error.summary)")
        }
    }
}

extension StepContext {

    /// Runs `body` with the decoded frame, and stores its changes, also if it throws.
    fileprivate mutating func with<Frame: Codable & Sendable, Value>(
        frame type: Frame.Type, _ body: @Sendable (inout StepContext, inout Frame) async throws -> Value
    ) async throws -> Value {
        if type == NoFrame.self, var none = NoFrame() as? Frame { return try await body(&self, &none) }
        var value: Frame = try WorkflowDefinition.decode(frame)
        let outcome: Result<Value, any Error>
        do { outcome = .success(try await body(&self, &value)) } catch { outcome = .failure(error) }
        var changed = try JSONValue(encoding: value).objectValue ?? [:]
        changed[WorkflowEngine.failureKey] = frame[WorkflowEngine.failureKey]
        frame = changed
        return try outcome.get()
    }
}

extension Optional where Wrapped: Sendable {
    /// The result of an earlier step.
    ///
    /// - Parameter name: the name of the frame's member, for the error.
    /// - Throws: `WorkflowMismatch` if it is missing, because the workflow was started with other steps.
    package func recorded(_ name: String) throws -> Wrapped {
        guard let self else { throw WorkflowMismatch("no step has recorded \(name)") }
        return self
    }
}
