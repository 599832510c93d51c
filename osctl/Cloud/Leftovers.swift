import Glibc
import JSON
import Kernel

/// Cleans up the state directory after a supervisor that was killed.
enum Leftovers {
    static func create(_ layout: CloudLayout) throws {
        for directory in [layout.state, layout.run, layout.log] { try Machine.makeDirectory(directory) }
        try Machine.write(
            layout.description,
            JSONValue.object([
                "port_offset": JSONValue(layout.portOffset), "hosts": JSONValue(layout.hostCount),
                "services": JSONValue(layout.extraServices),
            ]).description + "\n")
    }

    /// Stops the recorded parts that still run as the same processes.
    ///
    /// - Parameter guests: whether to stop the servers' QEMU processes too.
    /// - Returns: the number of stopped parts.
    @discardableResult
    static func stop(_ layout: CloudLayout, guests: Bool) async throws -> Int {
        if guests { try await stopGuests(layout) }
        let running = RecordedPart.all(layout).filter { $0.process?.isRunning == true }
        guard !running.isEmpty else {
            if guests { try await removeDevices(layout) }
            return 0
        }
        print("Stopping \(running.count) processes that an earlier supervisor left: \(running.map(\.name).joined(separator: ", "))")
        let time = SystemTime()
        // In reverse order: services before the broker and the database.
        for part in running.reversed() {
            try await part.process?.stop(part.stopSignal, grace: .seconds(10), time)
        }
        if guests { try await removeDevices(layout) }
        return running.count
    }

    static func removeDevices(_ layout: CloudLayout) async throws {
        guard Machine.exists(layout.devicesMark) else { return }
        await NetworkParts(layout: layout, host: layout.machine).removeDevices()
        try await SimulatedHosts(layout: layout).remove()
        unlink(layout.devicesMark)
        // The datapath is gone too, so another cloud may use it next.
        unlink(layout.datapathMark)
    }

    /// Kills QEMU processes of this cloud that outlived its libvirtd.
    private static func stopGuests(_ layout: CloudLayout) async throws {
        for host in layout.hosts { try await stopGuests(layout, host) }
    }

    private static func stopGuests(_ layout: CloudLayout, _ host: HostLayout) async throws {
        guard let directory = opendir(host.libvirt + "/run/qemu") else { return }
        defer { closedir(directory) }
        while let entry = readdir(directory) {
            let name = withUnsafePointer(to: &entry.pointee.d_name) {
                $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
            }
            guard name.hasSuffix(".pid"), let text = Machine.readText(host.libvirt + "/run/qemu/" + name),
                let pid = Int32(text.filter(\.isNumber)), let process = ProcessIdentity.current(pid),
                let command = Machine.readText("/proc/\(pid)/cmdline"), command.contains("qemu-system"),
                command.contains(layout.state + "/")
            else { continue }
            print("Stopping the guest of process \(pid)")
            try await process.stop(SIGTERM, grace: .seconds(5), SystemTime())
        }
    }
}
