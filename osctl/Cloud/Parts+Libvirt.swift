import Glibc
import Kernel

/// libvirtd and virtlogd, each in a mount namespace in which libvirt's fixed directories are the cloud's own.
///
/// Settings can only move the socket: root's libvirtd always uses /etc/libvirt, /var/lib/libvirt and /run/libvirt for
/// configuration, state and domains. Without private mounts two clouds would share their guests.
struct LibvirtParts: Sendable {
    let layout: CloudLayout
    let host: HostLayout
    let program: String
    let hostUUID: String

    var all: [Part] { [virtlogd, libvirtd] }

    /// The directory below `$STATE/libvirt`, and where libvirt expects it.
    private static let mounts = [
        ("etc", "/etc/libvirt"), ("lib", "/var/lib/libvirt"), ("run", "/run/libvirt"), ("log", "/var/log/libvirt"),
        ("cache", "/var/cache/libvirt"),
    ]

    /// Created by Debian's libvirt-daemon-system.
    private static let emulatorUser = "libvirt-qemu"

    private func launch(_ name: String, _ arguments: [String]) -> Launch {
        let mounts = LibvirtParts.mounts.map { (source: "\(host.libvirt)/\($0.0)", target: $0.1) }
        return Launch(
            arguments: host.command(
                arguments, program: program, mounts: mounts, opening: layout.state,
                devices: host.libvirt + "/dev"),
            environment: ["PATH": Tool.searchPath, "LC_ALL": "C.UTF-8", "HOME": "/root"],
            output: "\(layout.log)/\(name)\(host.partSuffix).log")
    }

    private var virtlogd: Part {
        let directory = host.libvirt
        return Part(
            name: "virtlogd" + host.partSuffix, group: .infrastructure, address: "",
            launch: launch("virtlogd", ["/usr/sbin/virtlogd", "-f", "/etc/libvirt/virtlogd.conf", "-p", "/run/libvirt/virtlogd.pid"]),
            needs: [], stopGrace: .seconds(3),
            prepare: { try writeConfiguration() },
            probe: {
                guard Machine.exists(directory + "/run/virtlogd-sock") else { throw CloudError("has no socket yet") }
                return ""
            })
    }

    private var libvirtd: Part {
        Part(
            name: "libvirtd" + host.partSuffix, group: .infrastructure, address: host.libvirtURI,
            launch: launch("libvirtd", ["/usr/sbin/libvirtd", "-f", "/etc/libvirt/libvirtd.conf", "-p", "/run/libvirt/libvirtd.pid"]),
            needs: ["virtlogd" + host.partSuffix],
            probe: {
                guard Machine.exists(host.libvirtSocket) else { throw CloudError("has no socket yet") }
                let text = try await Tool.require(["virsh", "-c", host.libvirtURI, "version"])
                let version = { (label: String) -> String in
                    text.split(separator: "\n").first { $0.hasPrefix(label) }?.split(separator: " ").last.map(String.init) ?? "?"
                }
                return version("Using library") + ", QEMU " + version("Running hypervisor")
            })
    }

    private func writeConfiguration() throws {
        for (source, _) in LibvirtParts.mounts { try Machine.makeDirectory("\(host.libvirt)/\(source)", mode: 0o755) }
        let directory = host.libvirt + "/etc"
        try Machine.write(
            directory + "/libvirtd.conf",
            """
            host_uuid = "\(hostUUID)"
            unix_sock_ro_perms = "0700"
            unix_sock_rw_perms = "0700"
            auth_unix_ro = "none"
            auth_unix_rw = "none"
            listen_tls = 0
            listen_tcp = 0
            log_outputs = "3:stderr"

            """)
        try Machine.write(directory + "/virtlogd.conf", "log_outputs = \"3:stderr\"\n")
        // QEMU runs as its own user, without capabilities, with its own /dev and a system call filter; libvirt gives it the
        // guest's files when the guest starts. Labels (AppArmor) would need profiles on the machine.
        try Machine.write(
            directory + "/qemu.conf",
            """
            user = "\(LibvirtParts.emulatorUser)"
            group = "kvm"
            security_driver = "none"
            dynamic_ownership = 1
            remember_owner = 0
            namespaces = [ "mount" ]
            seccomp_sandbox = 1
            cgroup_controllers = []

            """)
    }

    // MARK: Guests

    /// Stops every guest: requests a shutdown, and kills the guest after `grace`.
    func stopGuests(grace: Duration, progress: Progress) async {
        guard Machine.exists(host.libvirtSocket) else { return }
        do {
            let guests = try await names()
            guard !guests.isEmpty else { return }
            progress.begin("guests (\(guests.count))")
            for guest in guests { _ = try await virsh(["shutdown", guest]) }
            let time = SystemTime()
            let end = time.monotonicNanoseconds() + UInt64(grace.microseconds) * 1000
            while time.monotonicNanoseconds() < end, try await !names().isEmpty {
                try await time.sleep(for: .milliseconds(200))
            }
            for guest in try await names() { _ = try await virsh(["destroy", guest]) }
        } catch {
            progress.trouble("guests", "\(error)")
        }
    }

    private func names() async throws -> [String] {
        try await virsh(["list", "--uuid"]).output.split(separator: "\n").map { String($0) }
    }

    private func virsh(_ arguments: [String]) async throws -> Tool.Result {
        try await Tool.run(["virsh", "-c", host.libvirtURI] + arguments)
    }
}
