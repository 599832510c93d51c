import Contracts
import Database
import JSON
import Kernel
import Testing

@testable import ComputeService

@Suite struct HostUptimeTests {
    @Test func theTextHasTheFormOfUptime() throws {
        let now = try #require(Timestamp("2026-01-31T09:05:07Z"))
        for (seconds, loads, expected) in [
            (59, [0, 0, 0], " 09:05:07 up 0 min,  0 users,  load average: 0.00, 0.00, 0.00"),
            (3600 * 6 + 125, [1, 0.5, 12.345], " 09:05:07 up  6:02,  0 users,  load average: 1.00, 0.50, 12.35"),
            (86_400 + 300, [0.046, 0, 0], " 09:05:07 up 1 day, 5 min,  0 users,  load average: 0.05, 0.00, 0.00"),
            (11 * 86_400 + 36_000, [.nan, -1, 1e300], " 09:05:07 up 11 days, 10:00,  0 users,  load average: 0.00, 0.00, 0.00"),
        ] as [(Int, [Double], String)] {
            let text = HostUptimeText.text(HostUptimeQuestion.Answer(uptime: seconds, loadAverages: loads), at: now)
            #expect(text == expected)
            // The regular expression with which python-openstackclient parses it.
            #expect(try /\s*(.+)\sup\s+(.+),\s+(.+)\susers?,\s+load average:\s(.+)/.wholeMatch(in: text) != nil)
        }
    }

    @Test func hostsAreAsked() async throws {
        try await TestCloud.with { cloud in
            let list =
                try await cloud.call("GET", "/v2.1/os-hypervisors", as: "admin", version: "2.87").json["hypervisors"]?.arrayValue ?? []
            let (id, name) = (try #require(list.first?["id"]?.stringValue), try #require(list.first?["hypervisor_hostname"]))
            let uptime = "/v2.1/os-hypervisors/\(id)/uptime"
            let shown = try await cloud.call("GET", uptime, as: "admin", version: "2.87").json["hypervisor"]
            #expect(shown?["uptime"]?.stringValue?.hasSuffix(" up 1 day,  1:00,  0 users,  load average: 0.50, 0.25, 0.10") == true)
            #expect(shown?["id"] == .string(id) && shown?["hypervisor_hostname"] == name && shown?["state"] == "up")
            let number = try await cloud.call("GET", "/v2.1/os-hypervisors/1/uptime", as: "admin", version: "2.52").json["hypervisor"]
            #expect(number?["id"] == 1)
            let newer = try await cloud.call("GET", "/v2.1/os-hypervisors/\(id)", as: "admin", version: "2.88").json["hypervisor"]
            #expect(newer?["uptime"]?.stringValue?.contains(" up 1 day,  1:00, ") == true)
            #expect(try await cloud.call("GET", uptime, as: "admin", version: "2.88").status == 404)
            // A host that is down is not queried.
            try await cloud.database.write { try $0.execute("UPDATE compute_services SET forced_down = true") }
            let down = try await cloud.call("GET", uptime, as: "admin", version: "2.87")
            #expect(down.status == 400 && cloud.cloud.orders.count { $0["type"] == "host_uptime" } == 3)
            #expect(
                try await cloud.call("GET", "/v2.1/os-hypervisors/\(id)", as: "admin", version: "2.88").json["hypervisor"]?["uptime"]
                    == .null)
        }
    }

    @Test func diagnosticsHaveTheHypervisorsNamesBefore248() async throws {
        try await TestCloud.with { cloud in
            let server = try await cloud.createServer()
            let path = "/v2.1/servers/\(server)/diagnostics"
            #expect(try await cloud.call("GET", path, as: "admin", version: "2.47").status == 200)
            #expect(cloud.cloud.orders.last?["of_hypervisor"] == true)
            let newer = try await cloud.call("GET", path, as: "admin", version: "2.48").json
            #expect(cloud.cloud.orders.last?["of_hypervisor"] == nil)
            #expect(newer["uptime"]?.intValue != nil)
        }
    }
}
