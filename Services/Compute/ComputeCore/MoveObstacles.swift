package import Contracts

/// Differences between two hosts that prevent a running guest from moving.
package enum MoveObstacles {
    /// One sentence for each difference; empty if the guest can move.
    ///
    /// - Parameters:
    ///   - sharesProcessors: whether new guests get the processor features that both hosts have. For guests that started
    ///     earlier, libvirt checks the target's processor at the beginning of the move.
    ///   - networks: the physical networks that the guest is connected to.
    package static func list(
        from source: HostCapabilities, to target: HostCapabilities, sharesProcessors: Bool, networks: Set<String> = []
    ) -> [String] {
        var found: [String] = []
        // Agents of release 0.1.0 cannot expect a server.
        if target.release == nil { found.append("Its agent is of a release without live migration.") }
        if source.virtType != target.virtType {
            found.append("Guests are virtualised by \(target.virtType), but here by \(source.virtType).")
        }
        // A running guest keeps its list of permitted host processors.
        if (source.dedicatedCPUs ?? 0) > 0 || (target.dedicatedCPUs ?? 0) > 0 {
            found.append("One of the hosts has dedicated processors (agent.dedicated_cpus), which a moved guest would not respect.")
        }
        if source.processor.arch != target.processor.arch {
            found.append("The architecture is \(target.processor.arch), but here it is \(source.processor.arch).")
        }
        if target.hypervisorVersion < source.hypervisorVersion {
            found.append(
                "The hypervisor's version \(version(target.hypervisorVersion)) is older than \(version(source.hypervisorVersion)) here.")
        }
        // Guests see the host's processor with KVM only.
        if !sharesProcessors, source.virtType == "kvm", target.virtType == "kvm" {
            let missing = Set(source.processor.features).subtracting(target.processor.features).sorted()
            if !missing.isEmpty { found.append("The processor lacks \(missing.prefix(16).joined(separator: ", ")).") }
        }
        let unconnected = networks.subtracting(target.physicalNetworks ?? Array(networks)).sorted()
        if !unconnected.isEmpty {
            found.append(
                "It is not connected to the server's physical network \(unconnected.joined(separator: ", ")) (ovn-bridge-mappings).")
        }
        return found
    }

    private static func version(_ number: Int) -> String { "\(number / 1_000_000).\(number / 1000 % 1000).\(number % 1000)" }
}
