import Kernel
import ServiceCatalog
import Settings
import TestKit
import Testing

private let schema: SettingsSchema =
    .common
    + .section(
        "network",
        [
            .string("ovn_nb", default: "unix:/run/nb.sock", "OVN northbound database."),
            .integer("workers", default: 2, in: 1...64, "Workers."),
            .boolean("audit", default: true, "Audit."),
            .duration("audit_period", default: "5m", "How often."),
            .list("bridges", default: ["a", "b"], "Bridges."),
            .choice("mode", ["fast", "safe"], default: "safe", "Mode."),
            .required("region", "Which one."),
            .secret("token", required: false, "A token."),
        ])
    + .borrowing("agent", [.string("host", default: nil, "Host.")])

private let minimum = """
    database: { url: "host=/tmp" }
    messaging: { url: "amqp://localhost" }
    network: { region: north }
    """

private func parse(_ text: String, _ environment: [String: String] = [:]) throws -> Settings {
    try Settings.parse(text, name: "wolke.yaml", environment: environment, schema: schema)
}

private func problems(_ text: String, _ environment: [String: String] = [:]) -> [String] {
    do {
        _ = try parse(text, environment)
        return []
    } catch let error as SettingsError {
        return error.problems
    } catch {
        return ["\(error)"]
    }
}

@Suite struct SettingsTests {
    @Test func defaultsFileThenEnvironment() throws {
        let plain = try parse(minimum)
        #expect(plain.string("network.ovn_nb") == "unix:/run/nb.sock")
        #expect(plain.integer("network.workers") == 2)
        #expect(plain.boolean("network.audit"))
        #expect(plain.duration("network.audit_period") == .seconds(300))
        #expect(plain.list("network.bridges") == ["a", "b"])
        #expect(plain.optionalString("agent.host") == nil)
        #expect(plain.requiredSecret("database.url").exposed == "host=/tmp")
        #expect(plain.secret("network.token") == nil)
        #expect(plain.endpoint(.compute) == "http://127.0.0.1:8774")

        let text = minimum.replacing("region: north", with: "region: north, workers: 7, audit: no, bridges: [x], audit_period: 250ms")
        let set = try parse(text, ["WOLKE_NETWORK_WORKERS": "9", "WOLKE_NETWORK_BRIDGES": "p, q", "WOLKE_TEST_PG": "ignored"])
        #expect(set.integer("network.workers") == 9)
        #expect(!set.boolean("network.audit"))
        #expect(set.list("network.bridges") == ["p", "q"])
        #expect(set.duration("network.audit_period") == .milliseconds(250))
    }

    @Test func publicURLs() throws {
        let set = try parse(minimum + "\nendpoints: { public_host: \"2001:db8::1\", image_url: \"https://cloud.example/image/\" }")
        #expect(set.endpoint(.identity) == "http://[2001:db8::1]:5000")
        #expect(set.endpoint(.image) == "https://cloud.example/image")
    }

    @Test func unknownNamesAreErrorsWithTheNearestOne() {
        #expect(problems(minimum + "\nnetwrk: { x: 1 }") == ["wolke.yaml: unknown section \"netwrk\"; did you mean \"network\"?"])
        #expect(
            problems(minimum.replacing("region: north", with: "region: north, ovn_bn: x"))
                == ["wolke.yaml: network.ovn_bn: unknown key \"network.ovn_bn\"; did you mean \"network.ovn_nb\"?"])
        #expect(problems(minimum, ["WOLKE_NETWORK_WORKER": "1"]).first?.contains("did you mean \"network.workers\"?") == true)
        #expect(problems(minimum + "\nlog: { zzzzzzzzzzz: 1 }").first?.contains("known: log.level") == true)
    }

    @Test func sectionsOfOthersAreLeftAlone() throws {
        _ = try parse(minimum + "\nagent: { host: h1, anything: 1 }\ncompute: { whatever: [1] }")
    }

    @Test(arguments: [
        ("workers: many", "\"many\" is not a whole number from 1 to 64"), ("workers: 65", "\"65\" is not a whole number"),
        ("audit: perhaps", "is not a true or false"), ("audit_period: 5", "is not a duration"),
        ("mode: quick", "is not a one of fast, safe"), ("workers: [1]", "must be a whole number"),
        ("bridges: [{}]", "must be a list of texts"),
    ])
    func wrongValues(entry: String, message: String) {
        let found = problems(minimum.replacing("region: north", with: "region: north, \(entry)"))
        #expect(found.count == 1)
        #expect(found.first?.contains(message) == true, "\(found)")
    }

    @Test func everyProblemIsReported() {
        let found = problems("network: { workers: x, nope: 1 }")
        #expect(found.count == 5)
        #expect(found.contains { $0.contains("network.region is required (or WOLKE_NETWORK_REGION in the environment)") })
        #expect(found.contains { $0.contains("database.url is required") })
    }

    @Test func secretsFromFiles() throws {
        #expect(
            problems(minimum.replacing("region: north", with: "region: north, token_file: /nonexistent/x"))
                == ["wolke.yaml: network.token_file: cannot read /nonexistent/x: No such file or directory"])
        let set = try parse(minimum.replacing("region: north", with: "region: north, token_file: /etc/hostname"))
        let secret = try #require(set.secret("network.token"))
        #expect(!secret.exposed.isEmpty)
        #expect(!secret.exposed.hasSuffix("\n"))
        #expect("\(secret)" == "<secret>")
    }

    @Test(arguments: ["network: [", "- a\n- b", "network: text", "1: {a: b"])
    func brokenFiles(text: String) { #expect(!problems(text).isEmpty) }

    @Test func emptyFileIsOnlyMissingKeys() {
        #expect(problems("").allSatisfy { $0.contains("is required") })
        #expect(problems("").count == 3)
    }

    @Test func theSchemaNeedsTheDatabaseAlone() throws {
        let text = "database:\n  url: host=/x\nnetwork:\n  ovn_nb: unix:/y\n"
        let settings = try Settings.parse(text, name: "f", environment: ["WOLKE_MESSAGING_URL": "amqp://x"], schema: .database)
        #expect(settings.requiredSecret("database.url").exposed == "host=/x")
        #expect(throws: SettingsError.self) { try Settings.parse(text, name: "f", environment: [:], schema: .common) }
    }

    @Test func referenceNamesEveryKey() {
        let text = SettingsReference.markdown(schema)
        #expect(text.contains("| `ovn_nb` | text | `unix:/run/nb.sock` | `WOLKE_NETWORK_OVN_NB` | OVN northbound database. |"))
        #expect(text.contains("`token_file` may name a file"))
        #expect(!text.contains("## agent"))
    }

    @Test(arguments: [("1d", 86_400), ("2h", 7200), ("0s", 0)])
    func durations(text: String, seconds: Int) { #expect(DurationText.parse(text) == .seconds(seconds)) }

    @Test(arguments: ["", "5", "s", "-1s", "1.5s", "99999999999999999d", "1w"])
    func badDurations(text: String) { #expect(DurationText.parse(text) == nil) }
}
