import Kernel

/// What carries the packets between the ports of a host's bridges (`Bridge.datapath_type` of Open vSwitch).
enum Datapath: String, Sendable, Hashable {
    /// The kernel's module. The kernel has one for each network namespace, so two clouds cannot share a machine's.
    case kernel = "system"
    /// `ovs-vswitchd` itself.
    case userspace = "netdev"

    /// For people.
    var words: String { self == .kernel ? "kernel datapath" : "userspace datapath" }

    /// The device that the kernel's datapath shows as long as there is one.
    static let kernelDevice = "ovs-system"
}

/// What the operator wants.
enum DatapathChoice: String, Sendable, CaseIterable {
    case auto, system, netdev

    /// Decides for one start of the cloud.
    ///
    /// - Parameter ownsKernel: whether this cloud made the kernel's datapath that is there.
    /// - Returns: the datapath, and why where it is not the kernel's.
    /// - Throws: `CloudError` when the kernel's is asked for and cannot be used.
    func resolve(_ layout: CloudLayout, ownsKernel: Bool) async throws -> (datapath: Datapath, reason: String) {
        if self == .netdev { return (.userspace, "asked for") }
        let obstacle = await DatapathChoice.obstacle(layout, ownsKernel: ownsKernel)
        guard let obstacle else { return (.kernel, "") }
        guard self == .auto else { throw CloudError("the kernel's datapath cannot be used: \(obstacle)") }
        return (.userspace, obstacle)
    }

    /// Why the kernel's datapath cannot carry this cloud; nil when it can.
    private static func obstacle(_ layout: CloudLayout, ownsKernel: Bool) async -> String? {
        if layout.hostCount > 1 { return "the simulated hosts are connected in userspace" }
        if !ownsKernel, Machine.exists("/sys/class/net/\(Datapath.kernelDevice)") {
            return "another Open vSwitch on this machine uses the kernel's"
        }
        if ownsKernel { return nil }
        do {
            if Tool.find("modprobe") != nil { _ = try await Tool.run(["modprobe", "openvswitch"]) }
            // A module that is loaded may still be refused (containers): only making a datapath proves that it works.
            try await Tool.require(["ovs-dpctl", "add-dp", "wolke-probe"])
            try await Tool.require(["ovs-dpctl", "del-dp", "wolke-probe"])
            return nil
        } catch {
            return "the kernel does not make one"
        }
    }
}
