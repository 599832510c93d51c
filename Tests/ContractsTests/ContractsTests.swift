import Contracts
import Database
import JSON
import Kernel
import Messaging
import TestKit
import Testing

@Suite struct ContractsTests {
    @Test func messagesAreAsReleasesSendThem() throws {
        let differences = try MessageRecords.differences(try Samples.all(), file: "messages.json")
        #expect(differences == [])
    }

    /// Agents and replicas of the first release run during an upgrade of the control plane.
    @Test func messagesOfTheFirstReleaseAreRead() throws {
        let records = try GoldenFile.load("messages-0.1.0.json")
        let samples = try Samples.all()
        let added = [
            "connect_console@1", "ports_changed@1", "crash_dump@1", "cache_images@1", "set_password@1", "guest_password@1", "processors@1",
            "ensure@1 operation", "ensure@1 volume", "heartbeat@1 server",
            "host_uptime@1",
        ]
        #expect(records.names.sorted() == samples.keys.filter { key in !added.contains { key.hasPrefix($0) } }.sorted())
        for (key, record) in records.members.map({ ($0.name, $0.value) }) {
            // The decoded content is the same: members that are null there are omitted here.
            var read = try #require(try samples[key]?.recode(record))
            if record["type"] == nil, var object = read.objectValue {
                object["type"] = nil
                read = .object(object)
            }
            #expect(ContractsTests.withoutNulls(read) == ContractsTests.withoutNulls(record), "\(key)")
        }
    }

    private static func withoutNulls(_ value: JSONValue) -> JSONValue {
        if case .array(let items) = value { return .array(items.map(withoutNulls)) }
        guard case .object(let object) = value else { return value }
        return .object(JSONObject(object.members.filter { !$0.value.isNull }.map { ($0.name, withoutNulls($0.value)) }))
    }

    /// A later release may have more values.
    @Test func unknownWordsAreKept() throws {
        let operation: JSONValue = ["id": .string(Samples.id), "kind": "defragment"]
        let read = try operation.decode(as: ServerSpec.Operation.self)
        #expect(!ServerSpec.Operation.Kind.known.contains(read.kind) && read.kind.description == "defragment")
        #expect(try JSONValue(encoding: read) == operation)
        var report = try #require(try Samples.observed.document().objectValue)
        report["power_state"] = "hibernated"
        let observed = try ObservedReport(document: .object(report))
        #expect(!ReportedPower.known.contains(observed.power))
        #expect(try observed.document() == .object(report))
    }

    @Test func connectionsOfNBDServersAreRead() throws {
        let connection = try Samples.nbdVolume.connection.read()
        #expect(connection.driver == "nbd" && connection.host == "192.0.2.3" && connection.port == 10809)
        #expect(connection.export == "volume-1" && connection.format == "raw" && connection.readOnly == true && connection.path == nil)
    }

    @Test func decodingErrorsNameTheField() throws {
        func problem(_ body: JSONValue) -> String? {
            let message = Message(id: SystemRandom().uuid(), type: "observed", body: body)
            do {
                let _: ObservedReport = try message.decode()
                return nil
            } catch { return error.reason }
        }
        var body = try #require(try Samples.observed.document().objectValue)
        #expect(problem(.object(body)) == nil)
        body["generation"] = "3"
        #expect(problem(.object(body)) == "observed: generation: must be an integer, not string")
        body["generation"] = nil
        #expect(problem(.object(body)) == "observed: generation: is missing")
        body["generation"] = 3
        body["message_version"] = 2
        #expect(problem(.object(body)) == "observed: message_version: is 2; this release reads observed up to 1")
        #expect(problem([]) == "observed: must be an object, not array")
        #expect(problem(["type": "hello"]) == "observed: type: must be observed")
    }

    /// Triggers contain the names as text.
    @Test func triggersNotifyChannelsThatAreDeclared() async throws {
        try await TestDatabase.with { test in
            let names = try await test.database.read { connection in
                try connection.query(
                    """
                    SELECT DISTINCT m[1] AS name FROM pg_proc, regexp_matches(prosrc, 'pg_notify\\(''([^'']+)''', 'g') m
                    WHERE pronamespace = 'public'::regnamespace ORDER BY 1
                    """
                ).map { try $0.string("name") }
            }
            #expect(names == [NotificationChannel.identityChanged.name, NotificationChannel.northbound.name])
        }
    }

    @Test func payloadsAreReadAsTheyAreWritten() {
        func same<Payload: NotificationPayload & Equatable>(_ payload: Payload) -> Bool { Payload(payload: payload.payload) == payload }
        let id = SystemRandom().uuid().description
        #expect(same(Wake(service: "compute")) && same(Wake(service: "compute", subject: id)) && same(Wake(subject: id)))
        #expect(same(ProviderChanges(id)) && same(ProviderChanges("")) && same(ProviderChanges(origin: "o", providers: [id, id])))
        #expect(same(PeriodicTaskRequest(id: id)) && same(PeriodicTaskAnswer(question: id, service: "network")))
        #expect(PeriodicTaskAnswer(payload: "one") == nil && PeriodicTaskRequest(payload: "") == nil)
    }
}
