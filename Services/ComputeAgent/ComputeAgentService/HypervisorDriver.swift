import Libvirt

/// The domains of a host, as libvirt offers them. `Hypervisor` is libvirt itself; the simulation has its own.
package protocol HypervisorDriver: Sendable {
    /// Every domain, running or not.
    ///
    /// - Throws: `LibvirtError`, as all calls.
    func domains() async throws -> [DomainSummary]
    /// Nil when there is no such domain.
    func domain(_ uuid: String) async throws -> DomainSummary?
    /// The domain's XML: of the running guest, or (`inactive`) of its next start.
    func xml(_ uuid: String, inactive: Bool) async throws -> String
    /// Creates the persistent definition or replaces that of the same UUID; a running guest is not touched.
    func define(xml: String) async throws
    /// Starts a defined domain (from its managed save, where there is one). A running one counts as started.
    func start(_ uuid: String, paused: Bool) async throws
    /// Powers the domain off. A domain that is off counts as done.
    func destroy(_ uuid: String) async throws
    /// Asks the guest to shut down and returns at once.
    func shutdown(_ uuid: String, by method: ShutdownMethod) async throws
    func suspend(_ uuid: String) async throws
    func resume(_ uuid: String) async throws
    /// Writes the guest's memory to disk and stops it; the next `start` continues there.
    func managedSave(_ uuid: String) async throws
    func discardManagedSave(_ uuid: String) async throws
    /// Removes the definition; an absent domain counts as done.
    func undefine(_ uuid: String) async throws
    func attach(_ uuid: String, device xml: String, to scope: DeviceScope) async throws
    /// Asks for a device to be removed. For a running guest this returns before the guest has released it.
    func detach(_ uuid: String, device xml: String, from scope: DeviceScope) async throws
    /// Figures of a running domain under libvirt's names.
    func statistics(_ uuid: String) async throws -> [String: DomainStatistic]
}

extension Hypervisor: HypervisorDriver {}
