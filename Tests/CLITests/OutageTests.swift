import JSON
import Kernel
import Testing

@testable import osctl

@Suite struct OutageTests {
    @Test func outagesAreCountedAndToldInWords() {
        var outages = Outages()
        #expect(outages.words("ovs-vswitchd", since: nil) == nil)
        outages.begin(at: Timestamp(seconds: 0), "was ended by signal 6")
        outages.end(after: 1.25)
        outages.begin(at: Timestamp(seconds: 60), "ended with exit code 1")
        outages.end(after: 2)
        #expect(
            outages.words("ovs-vswitchd", since: Timestamp(seconds: 0))
                == "ovs-vswitchd was restarted 2 times since 1970-01-01T00:00:00Z, down for 3.2 s in all; "
                + "last at 1970-01-01T00:01:00Z: ended with exit code 1")
        #expect(Outages(json: outages.json) == outages)
        #expect(Outages(json: nil) == Outages())
    }

    @Test func outagesOfHostsAreDescribed() {
        let outages: JSONValue = [
            "count": 2, "milliseconds": 3250, "since": "2026-01-01T00:00:00Z", "last_at": "2026-01-02T00:00:00Z", "is_away": false,
        ]
        #expect(
            HostOutages.words(host: "h1", outages, datapath: "system")
                == "host h1: ovs-vswitchd was away 2 times since 2026-01-01T00:00:00Z, for 3.2 s in all, "
                + "last at 2026-01-02T00:00:00Z (datapath system)")
        var now = outages.objectValue ?? [:]
        (now["count"], now["is_away"]) = (1, true)
        #expect(HostOutages.words(host: "h1", .object(now), datapath: nil).contains("away once since"))
        #expect(HostOutages.words(host: "h1", .object(now), datapath: nil).hasSuffix("; it is away now"))
    }

    @Test func datapathChoicesAreChecked() throws {
        var options = CloudOptions()
        options.state = "/tmp/none"
        options.portOffset = nil
        options.hosts = nil
        for (word, choice) in [("auto", DatapathChoice.auto), ("system", .system), ("netdev", .netdev)] {
            options.datapath = word
            #expect(try options.datapathChoice() == choice)
        }
        options.datapath = "dpdk"
        #expect(throws: CloudError.self) { try options.datapathChoice() }
    }
}
