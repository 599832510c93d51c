import Foundation
import Inspections
import Kernel
import Schema
import ServiceCatalog
import Testing

@testable import osctl

/// The doctor's findings about releases and schemas.
@Suite struct ReleaseFindingsTests {
    private static let next = Schema.version + 1
    private static let pending = Schema.migrations + [Migration(next, "narrow", kind: .contract, "SELECT 1")]

    private static var present: SchemaState {
        SchemaState(applied: Set(Schema.migrations.map(\.number)), required: Schema.base, newestRelease: WolkeVersion.current)
    }

    private func replica(_ service: String, _ release: String = WolkeVersion.current, schema: Int = Schema.version) -> Replicas.Replica {
        Replicas.Replica(
            id: UUID128(high: 1, low: UInt64(schema)), service: service, host: "one", process: 1, release: release, schemaVersion: schema)
    }

    private func words(
        _ state: SchemaState = present, _ replicas: [Replicas.Replica] = [], unnamed: Int = 0,
        agents: [(host: String, release: String?)] = [], migrations: [Migration] = Schema.migrations
    ) -> [String] {
        ReleaseFindings.findings(state, replicas: replicas, unnamed: unnamed, agents: agents, migrations: migrations).map(\.words)
    }

    @Test func oneReleaseIsFine() {
        #expect(words(Self.present, [replica("wolke-compute"), replica("wolke-image")], agents: [("one", WolkeVersion.current)]) == [])
    }

    @Test func severalReleasesAreNamed() {
        let found = words(Self.present, [replica("wolke-compute"), replica("wolke-image", "0.1.9")], agents: [("one", nil)])
        #expect(found.count == 1)
        #expect(found[0].contains("0.1.9: wolke-image on one"), "\(found)")
        #expect(found[0].contains("0.1.0: wolke-compute-agent on one"), "\(found)")
        #expect(words(Self.present, [replica("wolke-compute")], unnamed: 3)[0].contains("do not register (3 sessions"))
    }

    @Test func aNewerSchemaIsNamed() {
        var state = Self.present
        (state.newestRelease, state.applied) = ("0.9.0", state.applied.union([Self.next]))
        #expect(words(state)[0].contains("schema \(Self.next) of release 0.9.0"))
    }

    @Test func missingAndPendingMigrationsAreNamed() {
        #expect(words(SchemaState(applied: [1]))[0].contains("run `osctl db migrate`"))
        let waits = words(Self.present, [replica("wolke-compute", schema: Schema.version)], migrations: Self.pending)
        #expect(waits == ["migration \(Self.next) (narrow) is pending: older replicas still run; then run `osctl db contract`"])
        let ready = words(Self.present, [replica("wolke-compute", schema: Self.next)], migrations: Self.pending)
        #expect(ready == ["migration \(Self.next) (narrow) is pending: run `osctl db contract`"])
        #expect(SchemaWords.status(Self.present, [replica("wolke-compute")]).contains("wolke-compute of release \(WolkeVersion.current)"))
    }
}
