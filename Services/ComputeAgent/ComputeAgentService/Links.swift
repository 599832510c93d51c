import CLinux
import Commands
import Glibc
package import Kernel
import Libvirt

/// The network devices of this host, through `ip`.
package struct Links: HostLinks {
    private let runner: CommandRunner
    private let threads: WorkerThreads

    package init(runner: CommandRunner, threads: WorkerThreads) {
        self.runner = runner
        self.threads = threads
    }

    /// Whether the machine has a network device of this name.
    package static func exists(_ name: String) -> Bool { if_nametoindex(name) != 0 }

    package func index(_ name: String) -> UInt32 { if_nametoindex(name) }

    /// Creates a persistent tap, set up and without addresses.
    package func ensureTap(_ name: String, mtu: Int, hasQueues: Bool) async throws {
        if !Links.exists(name) {
            try await runner.run(["ip", "tuntap", "add", "dev", name, "mode", "tap"] + (hasQueues ? ["multi_queue"] : []))
        }
        try await prepare(name, mtu: mtu)
    }

    /// See `HostLinks`.
    package func setMTU(_ name: String, _ mtu: Int) async throws {
        let text = try await threads.run { try Files.read("/sys/class/net/\(name)/mtu") }
        guard let text, Int(String(decoding: text, as: UTF8.self).filter(\.isNumber)) != mtu else { return }
        try await runner.run(["ip", "link", "set", "dev", name, "mtu", String(mtu)])
    }

    /// See `HostLinks`.
    package func hasQueues(_ name: String) async throws -> Bool {
        let text = try await threads.run { try Files.read("/sys/class/net/\(name)/tun_flags") }
        let digits = String(decoding: text ?? [], as: UTF8.self).filter { !$0.isWhitespace }.dropFirst(2)
        // IFF_MULTI_QUEUE of if_tun.h.
        return (Int(digits, radix: 16) ?? 0) & 0x100 != 0
    }

    /// Whether router advertisements from the device are dropped (`isOn`). OVN's ACLs cannot do this: northd lets neighbour
    /// discovery, and router advertisements with it, pass before all of them (`ls_in_acl`, priority 65532).
    ///
    /// - Throws: `FileError` if the kernel refuses the program.
    package func guardRouters(_ name: String, _ isOn: Bool) async throws {
        try await threads.run {
            guard clinux_router_guard(if_nametoindex(name), isOn ? 1 : 0) == 0 else {
                throw FileError.last("guard against router advertisements of", name)
            }
        }
    }

    /// Creates a veth pair into a namespace.
    package func ensureCable(_ outer: String, inner: String, into namespace: NetworkNamespace, mtu: Int) async throws {
        // A pair left by an earlier process leads into an unreachable namespace.
        try await remove(outer)
        try await runner.run([
            "ip", "link", "add", "name", outer, "type", "veth", "peer", "name", inner, "netns",
            String(namespace.threadID),
        ])
        try await prepare(outer, mtu: mtu)
    }

    private func prepare(_ name: String, mtu: Int) async throws {
        // The host must not send packets on a tenant's network.
        try await threads.run {
            try Files.overwrite("/proc/sys/net/ipv6/conf/\(name)/disable_ipv6", with: Array("1".utf8))
        }
        try await runner.run(["ip", "link", "set", "dev", name, "mtu", String(mtu), "up"])
    }

    /// Removes a device; an absent one counts as removed.
    package func remove(_ name: String) async throws {
        guard Links.exists(name) else { return }
        let outcome = try await runner.outcome(["ip", "link", "delete", "dev", name])
        if outcome.status != 0, Links.exists(name) {
            throw CommandError(arguments: ["ip", "link", "delete", "dev", name], status: outcome.status, output: outcome.output)
        }
    }

    /// Makes the kernel write checksums itself: the userspace datapath does not add what a device would have.
    /// Run it in the device's namespace.
    static func disableTransmitChecksums(_ name: String) throws {
        let descriptor = socket(AF_INET, Int32(SOCK_DGRAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { throw FileError.last("socket", name) }
        defer { close(descriptor) }
        // struct ethtool_value: the command (set transmit checksums) and its value, off.
        var value: [UInt32] = [0x17, 0]
        // struct ifreq: a name of 16 bytes, then a pointer to the value.
        var request = [UInt8](repeating: 0, count: 40)
        for (index, byte) in name.utf8.prefix(15).enumerated() { request[index] = byte }
        let result = value.withUnsafeMutableBytes { value in
            withUnsafeBytes(of: UInt(bitPattern: value.baseAddress)) { pointer in
                for (index, byte) in pointer.enumerated() { request[16 + index] = byte }
            }
            return request.withUnsafeMutableBytes { ioctl(descriptor, 0x8946, $0.baseAddress!) }
        }
        guard result == 0 else { throw FileError.last("ethtool", name) }
    }
}
