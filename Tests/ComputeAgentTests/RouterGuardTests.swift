import Commands
import Glibc
import JSON
import Kernel
import Libvirt
import Logging
import OVSDB
import Synchronization
import Telemetry
import Testing
import WebAPI

@testable import ComputeAgentCore
@testable import ComputeAgentService

extension OnARealHost {
    /// The packets that a guest sends through its tap, and those that the host receives.
    @Suite struct RouterGuardTests {
        /// An Ethernet frame with an IPv6 packet whose headers are `chain`: the number of each and its bytes.
        private func frame(_ chain: [(number: UInt8, bytes: [UInt8])]) -> [UInt8] {
            var payload: [UInt8] = []
            for (index, header) in chain.enumerated() {
                var bytes = header.bytes
                // An extension header begins with the number of what follows.
                if index + 1 < chain.count { bytes[0] = chain[index + 1].number }
                payload += bytes
            }
            let ethernet: [UInt8] = [0x33, 0x33, 0, 0, 0, 1, 0xfa, 0x16, 0x3e, 0, 0, 1, 0x86, 0xdd]
            let source: [UInt8] = [0xfe, 0x80] + [UInt8](repeating: 0, count: 13) + [1]
            let target: [UInt8] = [0xff, 2] + [UInt8](repeating: 0, count: 13) + [1]
            let length = [UInt8(payload.count >> 8), UInt8(payload.count & 0xff)]
            return ethernet + [0x60, 0, 0, 0] + length + [chain[0].number, 255] + source + target + payload
        }

        private func icmp(_ type: UInt8) -> (number: UInt8, bytes: [UInt8]) { (58, [type, 0] + [UInt8](repeating: 0, count: 14)) }
        private func options(_ number: UInt8, words: UInt8 = 0) -> (number: UInt8, bytes: [UInt8]) {
            (number, [0, words] + [UInt8](repeating: 0, count: 6 + 8 * Int(words)))
        }
        private func fragment(offset: UInt8) -> (number: UInt8, bytes: [UInt8]) { (44, [0, 0, 0, offset << 3, 0, 0, 0, 7]) }

        @Test("S15: router advertisements of a guest are dropped at its tap")
        func s15RouterAdvertisementsEndAtTheTap() async throws {
            let threads = WorkerThreads(name: "links", count: 1)
            let links = Links(runner: CommandRunner(threads: threads), threads: threads)
            let name = "wtguard\(getpid() % 100_000)"
            try await links.ensureTap(name, mtu: 1442, hasQueues: false)
            let wire = try Wire(name)
            let forbidden = [
                frame([icmp(134)]), frame([options(0), icmp(134)]), frame([options(0, words: 3), options(60), options(43), icmp(134)]),
                frame([fragment(offset: 0), icmp(134)]),
                frame((0..<9).map { _ in options(60) } + [icmp(134)]),
            ]
            let allowed = [
                frame([icmp(133)]), frame([icmp(135)]), frame([icmp(136)]), frame([icmp(128)]), frame([options(0), icmp(143)]),
                frame([(17, [UInt8](repeating: 134, count: 16))]), frame([fragment(offset: 4), icmp(134)]),
                [UInt8](repeating: 0xff, count: 12) + [8, 0] + [UInt8](repeating: 134, count: 60),
                // Shorter than its length field says.
                Array(frame([options(0), icmp(134)]).prefix(58)),
            ]
            #expect(try wire.seen(forbidden + allowed).count == forbidden.count + allowed.count)
            try await links.guardRouters(name, true)
            #expect(try wire.seen(forbidden) == [])
            #expect(try wire.seen(allowed) == allowed)
            // Attaching twice has no further effect; a port without port security may be a router.
            try await links.guardRouters(name, true)
            try await links.guardRouters(name, false)
            #expect(try wire.seen(forbidden) == forbidden)
            wire.close()
            try await links.remove(name)
        }

        /// An address pair, which the agent does not know, lets a port without an IPv6 address send IPv6.
        @Test("S15: a port is not plugged without its guard, regardless of its addresses")
        func s15NoPortWithoutItsGuard() async throws {
            let threads = WorkerThreads(name: "links", count: 1)
            let links = Links(runner: CommandRunner(threads: threads), threads: threads)
            let client = OVSDBClient(
                OVSDBConfiguration(endpoints: [.unix(path: "/no/such/socket")], database: "Open_vSwitch", monitors: SwitchPorts.monitors),
                ambient: Ambient(), logger: Logger(label: "test"))
            let ports = SwitchPorts(client: client, bridge: "br-int")
            let told = Mutex<[Bool]>([])
            let network = HostNetwork(
                links: links, ports: ports,
                metadata: MetadataNetworks(
                    links: links, ports: ports, directory: MetadataDirectory(), random: SystemRandom(), metrics: Metrics(),
                    limits: .small, log: Logger(label: "test")),
                time: SystemTime(),
                setGuard: { _, isOn in
                    told.withLock { $0.append(isOn) }
                    if isOn { throw FileError(operation: "guard", path: "tap", number: EOPNOTSUPP) }
                })
            func port(_ address: String, secured: Bool) throws -> DesiredPort {
                var fields = Fixture.port.objectValue ?? [:]
                fields["fixed_ips"] = [
                    [
                        "ip_address": .string(address), "subnet_id": "s",
                        "cidr": .string(address.contains(":") ? "2001:db8::/64" : "10.0.0.0/24"),
                    ]
                ]
                fields["metadata_port"] = nil
                fields["port_security_enabled"] = .bool(secured)
                return try #require(try Fixture.server(["ports": [.object(fields)]]).ports.first)
            }
            let tap = try port("10.0.0.5", secured: true).tapName
            try await links.ensureTap(tap, mtu: 1442, hasQueues: false)
            for address in ["10.0.0.5", "2001:db8::5"] {
                let one = try port(address, secured: true)
                await #expect(throws: FileError.self, "\(address)") { try await network.ensureMetadata([one]) }
                #expect(await !network.isMetadataReady([one]))
            }
            try await network.ensureMetadata([try port("10.0.0.5", secured: false)])
            #expect(told.withLock { $0 } == [true, true, false])
            try await links.remove(tap)
        }
    }
}

/// Both ends of a tap: the guest's, and a listener in place of the switch.
private struct Wire {
    let guest: Int32
    let host: Int32

    init(_ name: String) throws {
        guest = open("/dev/net/tun", O_RDWR | O_CLOEXEC)
        // struct ifreq: the name, then flags IFF_TAP and IFF_NO_PI.
        var request = [UInt8](repeating: 0, count: 40)
        for (index, byte) in name.utf8.enumerated() { request[index] = byte }
        request[16] = 0x02
        request[17] = 0x10
        let guest = guest
        let attached = request.withUnsafeMutableBytes { ioctl(guest, 0x4004_54ca, $0.baseAddress!) }
        try #require(attached == 0)
        let all = UInt16(3).bigEndian
        let host = socket(AF_PACKET, Int32(SOCK_RAW.rawValue) | Int32(SOCK_CLOEXEC.rawValue), Int32(all))
        self.host = host
        // struct sockaddr_ll: family, protocol, index.
        var address = [UInt8](repeating: 0, count: 20)
        withUnsafeBytes(of: UInt16(AF_PACKET)) { address.replaceSubrange(0..<2, with: $0) }
        withUnsafeBytes(of: all) { address.replaceSubrange(2..<4, with: $0) }
        withUnsafeBytes(of: if_nametoindex(name)) { address.replaceSubrange(4..<8, with: $0) }
        let bound = address.withUnsafeBytes { bind(host, $0.baseAddress!.assumingMemoryBound(to: sockaddr.self), 20) }
        try #require(bound == 0)
    }

    /// Sends each frame and returns the frames received within 0.2 s, in the order in which they were sent.
    func seen(_ frames: [[UInt8]]) throws -> [[UInt8]] {
        for frame in frames { try #require(write(guest, frame, frame.count) == frame.count) }
        var result: [[UInt8]] = []
        var buffer = [UInt8](repeating: 0, count: 4096)
        var wait = pollfd(fd: host, events: Int16(POLLIN), revents: 0)
        while poll(&wait, 1, 200) > 0 {
            let count = recv(host, &buffer, buffer.count, 0)
            let frame = Array(buffer.prefix(max(0, count)))
            if frames.contains(frame) { result.append(frame) }
        }
        return result
    }

    func close() {
        _ = Glibc.close(guest)
        _ = Glibc.close(host)
    }
}
