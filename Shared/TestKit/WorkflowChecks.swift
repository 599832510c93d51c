import Kernel
import Synchronization
package import Workflow

/// The three checks that every workflow must pass, generated from its list of steps: each step fails, each step and undo runs
/// twice, the process dies around each step and around each effect.
package struct WorkflowChecks: Sendable {
    /// A disturbed workflow and its expected end.
    package struct Variant: Sendable {
        package let name: String
        /// The workflow with the disturbance.
        package let definition: WorkflowDefinition
        /// Whether the workflow must complete despite the disturbance; otherwise it must be unwound completely.
        package let succeeds: Bool
    }

    private let definition: WorkflowDefinition

    package init(_ definition: WorkflowDefinition) { self.definition = definition }

    /// All variants.
    package var variants: [Variant] { failing + [twice] + killed }

    // MARK: each step fails

    /// Each step in turn fails permanently: before its effects, and after all of them.
    package var failing: [Variant] {
        guard !definition.retriesForever else { return [] }
        return definition.steps.flatMap { step in
            [false, true].map { late in
                Variant(
                    name: "\(step.name) fails \(late ? "after" : "before") its effects",
                    definition: replacing(step) { original in
                        WorkflowStep(
                            original.name, deadline: original.deadline,
                            run: { context in
                                if late {
                                    let result = try await original.run(&context)
                                    switch result {
                                    case .wait, .progress: return result
                                    default: break
                                    }
                                }
                                throw StepFailure("made to fail")
                            }, undo: original.undo)
                    }, succeeds: false)
            }
        }
    }

    // MARK: everything twice

    /// Each step and each undo runs twice in a row; the second time with the results of the first.
    package var twice: Variant {
        let doubled = definition.mapping { step in
            var undo: (@Sendable (inout StepContext) async throws -> Void)?
            if let original = step.undo {
                undo = { context in
                    try await original(&context)
                    try await original(&context)
                }
            }
            return WorkflowStep(
                step.name, deadline: step.deadline,
                run: { context in
                    _ = try await step.run(&context)
                    return try await step.run(&context)
                }, undo: undo)
        }
        return Variant(name: "every step and undo twice", definition: doubled, succeeds: true)
    }

    // MARK: the process dies

    /// The process dies once right before or right after each step.
    package var killed: [Variant] {
        definition.steps.flatMap { step in
            [false, true].map { late in
                let once = Once()
                return Variant(
                    name: "killed \(late ? "after" : "before") \(step.name)",
                    definition: replacing(step) { original in
                        WorkflowStep(
                            original.name, deadline: original.deadline,
                            run: { context in
                                guard !once.isTaken else { return try await original.run(&context) }
                                if late { _ = try await original.run(&context) }
                                once.take()
                                throw SimulatedKill()
                            }, undo: original.undo)
                    }, succeeds: true)
            }
        }
    }

    // MARK: building

    private final class Once: Sendable {
        private let taken = Mutex(false)
        var isTaken: Bool { taken.withLock { $0 } }
        func take() { taken.withLock { $0 = true } }
    }

    /// The workflow with one step that fails permanently after its effects, for checks of undo.
    package func failing(step name: String) -> WorkflowDefinition {
        guard let variant = failing.first(where: { $0.name.hasPrefix("\(name) fails after") }) else { return definition }
        return variant.definition
    }

    private func replacing(_ step: WorkflowStep, _ change: (WorkflowStep) -> WorkflowStep) -> WorkflowDefinition {
        definition.mapping { $0.name == step.name ? change($0) : $0 }
    }
}

/// Counts the external effects of fakes, and lets the process die before or after one of them.
package final class EffectProbe: Sendable {
    private struct State {
        var count = 0
        var names: [String] = []
        var killAt: Int?
        var late = false
    }

    private let state: Mutex<State>

    /// - Parameters:
    ///   - killAt: the effect, counted from 0, around which the process dies once; nil for none.
    ///   - late: whether it dies after the effect.
    package init(killAt: Int? = nil, late: Bool = false) { state = Mutex(State(killAt: killAt, late: late)) }

    /// The effects, in order.
    package var names: [String] { state.withLock { $0.names } }

    /// Restarts counting, and dies around another effect.
    package func arm(killAt: Int?, late: Bool = false) { state.withLock { $0 = State(killAt: killAt, late: late) } }

    /// Runs one effect.
    ///
    /// - Throws: `SimulatedKill` at the chosen effect.
    package func effect<Value>(_ name: String, _ body: () async throws -> Value) async throws -> Value {
        let (dies, late) = state.withLock { state -> (Bool, Bool) in
            defer { state.count += 1 }
            state.names.append(name)
            return (state.killAt == state.count, state.late)
        }
        if dies, !late { throw SimulatedKill() }
        let value = try await body()
        if dies { throw SimulatedKill() }
        return value
    }
}
