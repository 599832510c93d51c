import Database
import Kernel
import TestKit
import Testing
@testable import Workflow

/// Workflows that start other workflows.
@Suite struct ChildWorkflowTests {
    private typealias Bench = WorkflowTests.Bench

    private struct Parts: Codable, Sendable {
        /// Subjects of the children.
        var subjects: [String]
        /// Subjects of children that fail.
        var failing: [String] = []
        /// Subjects of children that wait until they are cancelled.
        var endless: [String] = []
        var total: Int?
    }

    private struct Part: Codable, Sendable {
        var number: Int
        var fails: Bool
        var isEndless: Bool
    }

    private struct Cloud: Sendable {
        let bench: Bench
        let wait: ChildrenWait

        /// The child's effect is a row of the inbox under its subject.
        var child: Workflow<Part> {
            Workflow(
                service: "test", kind: "part",
                steps: [
                    .init(
                        "make", deadline: .seconds(86_400),
                        run: { context, frame in
                            let subject = context.subjectID
                            try await bench.database.write {
                                try $0.execute(
                                    """
                                    INSERT INTO inbox (consumer, message_id, received_at) VALUES ('part', \(subject)::uuid, now())
                                    ON CONFLICT DO NOTHING
                                    """)
                            }
                            if frame.fails { throw StepFailure("part \(frame.number) failed") }
                            if frame.isEndless { return .wait(.seconds(2)) }
                            try context.finish(with: frame.number * 10)
                            return .next
                        }, undo: { context, _ in try await remove(context.subjectID) })
                ], failed: { _, _, _ in })
        }

        func remove(_ subject: String) async throws {
            try await bench.database.write {
                try $0.execute("DELETE FROM inbox WHERE consumer = 'part' AND message_id = \(subject)::uuid")
            }
        }

        var parent: Workflow<Parts> {
            Workflow(
                service: "test", kind: "whole",
                steps: [
                    before,
                    .children(
                        "parts", deadline: .seconds(3600), wait: wait,
                        starts: { _, frame in
                            try frame.subjects.enumerated().map { number, subject in
                                try WorkflowStart(
                                    child, subject: subject,
                                    frame: Part(
                                        number: number + 1, fails: frame.failing.contains(subject),
                                        isEndless: frame.endless.contains(subject)))
                            }
                        },
                        collect: { _, frame, children in
                            frame.total = try children.filter { $0.state == .done }.reduce(0) { try $0 + $1.result(as: Int.self) }
                            return .next
                        },
                        undo: { _, _, children in
                            for child in children where child.state == .done { try await remove(child.subjectID) }
                        }),
                    .init("after") { _, frame in
                        bench.trace.add("total \(try frame.total.recorded("total"))")
                        return .next
                    },
                ], failed: { _, _, failure in bench.trace.add("failed: \(failure.message)") })
        }

        private var before: Workflow<Parts>.Step { .init("before") { _, _ in .next } }

        func effects() async throws -> Int {
            try await bench.database.read { try $0.query("SELECT count(*) AS count FROM inbox WHERE consumer = 'part'")[0].int("count") }
        }

        func children() async throws -> [String] {
            try await bench.database.read {
                try $0.query("SELECT state FROM workflows WHERE parent_id IS NOT NULL ORDER BY created_at, parent_ordinal").map {
                    try $0.string("state")
                }
            }
        }

        func subjects(_ count: Int) -> [String] { (0..<count).map { _ in bench.ambient.newUUID().description } }

        func run(_ parts: Parts) async throws {
            let subject = bench.ambient.newUUID().description
            try await bench.database.write {
                try Workflows.start($0, parent, subject: subject, frame: parts, requestID: nil, ambient: bench.ambient)
            }
            try await bench.engine(of: [parent.definition, child.definition]).drain()
        }
    }

    private func with<Value: Sendable>(_ wait: ChildrenWait, _ body: (Cloud) async throws -> Value) async throws -> Value {
        try await WorkflowTests().with { try await body(Cloud(bench: $0, wait: wait)) }
    }

    @Test func allAreStartedAndTheirResultsCollected() async throws {
        try await with(.all) { cloud in
            try await cloud.run(Parts(subjects: cloud.subjects(3)))
            #expect(cloud.bench.trace.all == ["total 60"])
            #expect(try await cloud.children() == ["done", "done", "done"])
            #expect(try await cloud.effects() == 3)
        }
    }

    @Test func noneIsFine() async throws {
        try await with(.all) { cloud in
            try await cloud.run(Parts(subjects: []))
            #expect(cloud.bench.trace.all == ["total 0"])
        }
    }

    @Test func aFailedChildCancelsTheOthers() async throws {
        try await with(.all) { cloud in
            let subjects = cloud.subjects(3)
            try await cloud.run(Parts(subjects: subjects, failing: [subjects[1]], endless: [subjects[2]]))
            #expect(cloud.bench.trace.all == ["failed: part 2 failed"])
            #expect(try await cloud.children() == ["done", "failed", "failed"])
            #expect(try await cloud.effects() == 0, "also what was done is taken back")
        }
    }

    @Test func theFirstIsEnoughAndTheOthersAreCancelled() async throws {
        try await with(.first) { cloud in
            let subjects = cloud.subjects(3)
            try await cloud.run(Parts(subjects: subjects, failing: [subjects[0]], endless: [subjects[1]]))
            #expect(cloud.bench.trace.all == ["total 30"])
            #expect(try await cloud.children() == ["failed", "failed", "done"])
            #expect(try await cloud.effects() == 1)
        }
    }

    @Test func whereAllFailThereIsNoFirst() async throws {
        try await with(.first) { cloud in
            let subjects = cloud.subjects(2)
            try await cloud.run(Parts(subjects: subjects, failing: subjects))
            #expect(cloud.bench.trace.all == ["failed: part 1 failed"])
            #expect(try await cloud.effects() == 0)
        }
    }

    @Test func underEveryDisturbanceOfTheParentOrOfTheChild() async throws {
        try await with(.all) { cloud in
            for disturbsParent in [true, false] {
                let disturbed = disturbsParent ? cloud.parent.definition : cloud.child.definition
                for variant in WorkflowChecks(disturbed).variants {
                    let label = Comment(rawValue: "\(disturbed.kind): \(variant.name)")
                    let subject = cloud.bench.ambient.newUUID().description
                    let parts = Parts(subjects: cloud.subjects(2))
                    try await cloud.bench.database.write {
                        try Workflows.start($0, cloud.parent, subject: subject, frame: parts, requestID: nil, ambient: cloud.bench.ambient)
                    }
                    try await cloud.bench.engine(
                        of: disturbsParent ? [variant.definition, cloud.child.definition] : [cloud.parent.definition, variant.definition]
                    ).drain()
                    let state = try await cloud.bench.database.read {
                        try $0.query("SELECT state FROM workflows WHERE subject_id = \(subject)::uuid")[0].string("state")
                    }
                    #expect(state == (variant.succeeds ? "done" : "failed"), label)
                    #expect(try await cloud.effects() == (variant.succeeds ? 2 : 0), label)
                    try await cloud.bench.database.write { try $0.execute("DELETE FROM inbox") }
                    #expect(try await cloud.children().count == 2 || !variant.succeeds, label)
                    try await cloud.bench.database.write { try $0.execute("DELETE FROM workflows") }
                }
            }
        }
    }
}
