import Kernel

/// The type of Open vSwitch's datapath for a host's bridges (`Bridge.datapath_type`).
enum Datapath: String, Sendable, Hashable {
    /// The kernel module. The kernel has one datapath per network namespace, so two clouds cannot both use a machine's.
    case kernel = "system"
    /// Userspace: `ovs-vswitchd` itself.
    case userspace = "netdev"

    /// The name for display.
    var words: String { self == .kernel ? "kernel datapath" : "userspace datapath" }

    /// The device that exists as long as the kernel's datapath.
    static let kernelDevice = "ovs-system"
}

/// The operator's choice of the datapath.
enum DatapathChoice: String, Sendable, CaseIterable {
    case auto, system, netdev

    /// Decides for one start of the cloud.
    ///
    /// - Parameter ownsKernel: whether an existing kernel datapath belongs to this cloud.
    /// - Returns: the datapath, and the reason if it is not the kernel's.
    /// - Throws: `CloudError` if the kernel's is required and cannot be used.
    func resolve(_ layout: CloudLayout, ownsKernel: Bool) async throws -> (datapath: Datapath, reason: String) {
        if self == .netdev { return (.userspace, "asked for") }
        let obstacle = await DatapathChoice.obstacle(layout, ownsKernel: ownsKernel)
        guard let obstacle else { return (.kernel, "") }
        guard self == .auto else { throw CloudError("the kernel's datapath cannot be used: \(obstacle)") }
        return (.userspace, obstacle)
    }

    /// Why the kernel's datapath cannot be used for this cloud; nil if it can.
    private static func obstacle(_ layout: CloudLayout, ownsKernel: Bool) async -> String? {
        if layout.hostCount > 1 { return "the simulated hosts are connected in userspace" }
        if !ownsKernel, Machine.exists("/sys/class/net/\(Datapath.kernelDevice)") {
            return "another Open vSwitch on this machine uses the kernel's"
        }
        if ownsKernel { return nil }
        do {
            if Tool.find("modprobe") != nil { _ = try await Tool.run(["modprobe", "openvswitch"]) }
            // Even a loaded module may be refused (in containers); only creating a datapath proves that it works.
            try await Tool.require(["ovs-dpctl", "add-dp", "wolke-probe"])
            try await Tool.require(["ovs-dpctl", "del-dp", "wolke-probe"])
            return nil
        } catch {
            return "the kernel cannot create one"
        }
    }
}
