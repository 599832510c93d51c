import Workflow

/// Records which process runs a step of which workflow, and checks that there are never two.
final class StepWatch: @unchecked Sendable {
    private var runners: [WorkflowID: SimulatedProcess] = [:]

    /// The workflow with its steps recorded for `process`. Actions of a dead process have no effect and are not counted.
    func watching(_ definition: WorkflowDefinition, in process: SimulatedProcess) -> WorkflowDefinition {
        definition.mapping { step in
            WorkflowStep(
                step.name, deadline: step.deadline,
                run: { context in
                    self.begin(context.workflowID, step.name, process)
                    defer { self.end(context.workflowID, process) }
                    return try await step.run(&context)
                },
                undo: { context in
                    self.begin(context.workflowID, "undo \(step.name)", process)
                    defer { self.end(context.workflowID, process) }
                    try await step.undo?(&context)
                })
        }
    }

    private func begin(_ id: WorkflowID, _ step: String, _ process: SimulatedProcess) {
        guard process.isAlive else { return }
        if let other = runners[id], other.isAlive {
            process.world.violation("\(process.name) runs \(step) of the workflow \(id), which \(other.name) runs too")
        }
        runners[id] = process
    }

    private func end(_ id: WorkflowID, _ process: SimulatedProcess) {
        if runners[id] === process { runners[id] = nil }
    }
}
