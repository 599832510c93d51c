import Kernel
import Testing

@testable import ComputeAgentCore

/// The limits of tracked connections that the agent sets and removes.
@Suite struct ZoneLimitsTests {
    private let zones = ["port-a": 3, "port-b": 9, "router_dnat": 5, "router_snat": 6]

    @Test("S18: the zone of every port on the host has a limit, a router's has none")
    func s18PortsAreLimited() {
        let ports: Set = ["port-a", "port-b", "port-without-a-zone"]
        let plan = ZoneLimits.plan(ports: ports, zones: zones, current: [9: 100], limit: 500)
        #expect(plan == ZoneLimits.Plan(limits: [3: 500, 9: 500], removed: []))
        #expect(ZoneLimits.plan(ports: ports, zones: zones, current: [3: 500, 9: 500], limit: 500).isEmpty)
    }

    /// ovn-controller reuses a zone when its port is gone.
    @Test func aZoneThatIsNoPortsAnyMoreLosesItsLimit() {
        let plan = ZoneLimits.plan(ports: ["port-a"], zones: zones, current: [3: 500, 5: 500, 9: 500, 70: 500], limit: 500)
        // 70 was not assigned by the controller, so its owner is unknown.
        #expect(plan == ZoneLimits.Plan(limits: [:], removed: [5, 9]))
    }

    /// Open vSwitch 3.1 in userspace allows no connections through a zone with a limit of 0.
    @Test func zeroRemovesTheLimit() {
        let plan = ZoneLimits.plan(ports: ["port-a"], zones: zones, current: [3: 500], limit: 0)
        #expect(plan == ZoneLimits.Plan(limits: [:], removed: [3]))
        #expect(ZoneLimits.plan(ports: ["port-a"], zones: zones, current: [:], limit: 0).isEmpty)
    }

    @Test func zonesAreReadFromTheBridge() {
        let ids = [
            ("ct-zone-port-a", "3"), ("ct-zone-router_snat", "6"), ("ovn-nb-cfg", "2"), ("ct-zone-bad", "x"), ("ct-zone-big", "65536"),
        ]
        #expect(ZoneLimits.zones(ids) == ["port-a": 3, "router_snat": 6])
    }

    @Test func limitsAreReadFromTheSwitch() {
        #expect(ZoneLimits.parse("default limit=0\nzone=3,limit=100,count=61\nzone=9,limit=65536,count=391\n") == [3: 100, 9: 65_536])
        #expect(ZoneLimits.parse("default limit=0\n") == [:])
    }

    @Test func commandsAreOfBoundedLength() {
        let many = Dictionary(uniqueKeysWithValues: (1...401).map { ($0, 7) })
        let commands = ZoneLimits.commands(.init(limits: many, removed: [500, 499]), datapath: "system@ovs-system")
        #expect(commands.first == ["dpctl/ct-del-limits", "system@ovs-system", "zone=499,500"])
        #expect(commands.dropFirst().map(\.count) == [202, 202, 3])
        #expect(commands.last == ["dpctl/ct-set-limits", "system@ovs-system", "zone=401,limit=7"])
    }
}

/// How the agent counts the outages of ovs-vswitchd.
@Suite struct SwitchOutagesTests {
    private let first = SwitchProcess(pid: 10, startTicks: 5)
    private let second = SwitchProcess(pid: 11, startTicks: 9)

    @Test func outagesAreCountedWithTheirLength() throws {
        var outages = SwitchOutages(bootID: "b", since: Timestamp(seconds: 0))
        func look(_ process: SwitchProcess?, _ seconds: Int64) -> Bool { outages.observe(process, at: Timestamp(seconds: seconds)) }
        // A process that has not started yet does not count as an outage.
        let quiet = [look(nil, 1), look(first, 2), look(first, 3)]
        #expect(quiet == [false, false, false] && outages.count == 0)
        let gone = [look(nil, 4), look(nil, 5)]
        #expect(gone == [true, false] && outages.isAway && outages.count == 1)
        let back = look(second, 7)
        #expect(back && !outages.isAway && outages.count == 1 && outages.lasted == .seconds(3))
        // Replaced between two checks.
        let replaced = look(first, 9)
        #expect(replaced && outages.count == 2 && outages.lasted == .seconds(3) && outages.lastAt == Timestamp(seconds: 9))
        let kept = try SwitchOutages(document: outages.document)
        #expect(kept.document == outages.document)
    }

    /// A restart of the agent is no outage of the switch, regardless of the process that runs then.
    @Test func restartsWithoutTheAgentAreNotCounted() throws {
        var outages = SwitchOutages(bootID: "b", since: Timestamp(seconds: 0))
        _ = outages.observe(first, at: Timestamp(seconds: 1))
        var later = try SwitchOutages(document: outages.document)
        let noticed = later.observe(second, at: Timestamp(seconds: 60))
        #expect(!noticed && later.count == 0)
    }

    @Test func aProcessIsToldByItsNameAndStart() {
        func stat(_ name: String, _ state: String = "S") -> String {
            "42 (\(name)) \(state) " + (4...30).map { "\($0 * 100)" }.joined(separator: " ")
        }
        #expect(SwitchProcess(pid: 42, stat: stat("ovs-vswitchd")) == SwitchProcess(pid: 42, startTicks: 2200))
        #expect(SwitchProcess(pid: 42, stat: stat("bash")) == nil)
        #expect(SwitchProcess(pid: 42, stat: stat("ovs-vswitchd", "Z")) == nil)
        #expect(SwitchProcess(pid: 42, stat: "") == nil)
    }
}
