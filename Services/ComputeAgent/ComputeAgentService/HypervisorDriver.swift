package import Libvirt

/// Access to the domains of a host. `Hypervisor` is libvirt itself; the simulation has its own implementation.
package protocol HypervisorDriver: Sendable {
    /// Every domain, running or not.
    ///
    /// - Throws: `LibvirtError`, like all functions.
    func domains() async throws -> [DomainSummary]
    /// Nil if the domain does not exist.
    func domain(_ uuid: String) async throws -> DomainSummary?
    /// The domain's XML: of the running guest, or (`inactive`) of its next start.
    func xml(_ uuid: String, inactive: Bool) async throws -> String
    /// The model and features that all of the given processors have.
    func baselineProcessor(emulator: String, machine: String, type: String, definitions: [String]) async throws -> String
    /// Creates or replaces the persistent definition of the domain; a running guest is not changed.
    func define(xml: String) async throws
    /// Starts a defined domain (from its managed save, if there is one). Succeeds if it is already running.
    func start(_ uuid: String, paused: Bool) async throws
    /// Forces the domain off. Succeeds if it is already off.
    func destroy(_ uuid: String) async throws
    /// Requests the guest to shut down; does not wait.
    func shutdown(_ uuid: String, by method: ShutdownMethod) async throws
    func suspend(_ uuid: String) async throws
    func resume(_ uuid: String) async throws
    /// Writes the guest's memory to disk and stops it; the next `start` continues there.
    func managedSave(_ uuid: String) async throws
    func discardManagedSave(_ uuid: String) async throws
    /// Removes the definition; succeeds if the domain does not exist.
    func undefine(_ uuid: String) async throws
    func attach(_ uuid: String, device xml: String, to scope: DeviceScope) async throws
    /// Requests the removal of a device. For a running guest it returns before the guest has released the device.
    func detach(_ uuid: String, device xml: String, from scope: DeviceScope) async throws
    /// A new connection to the display of a running domain; the caller owns the descriptor.
    func openDisplay(_ uuid: String) async throws -> Int32
    /// Starts to copy disks of the running domain, as they are now, to new files; does not wait for the end.
    func beginBackup(_ uuid: String, xml: String) async throws
    /// The progress of the copy. The end is reported only once.
    func backupState(_ uuid: String) async throws -> DomainBackupState
    /// Cancels the copy; does not wait until it has ended. Succeeds if there is none.
    func abortBackup(_ uuid: String) async throws
    /// Begins to copy a disk of the running domain to an existing one; does not wait.
    func beginBlockCopy(_ uuid: String, disk: String, xml: String) async throws
    /// How far the copy is; nil if there is none.
    func blockCopyState(_ uuid: String, disk: String) async throws -> DomainBlockCopyState?
    /// Ends the copy; if `pivots`, the guest uses the copy from then on.
    func endBlockCopy(_ uuid: String, disk: String, pivots: Bool) async throws
    /// The size of a running guest's disk in bytes.
    func diskSize(_ uuid: String, disk: String) async throws -> Int
    /// Gives a disk of the running guest a size, and tells the guest.
    func resizeDisk(_ uuid: String, disk: String, bytes: Int) async throws
    /// Makes the guest agent flush and freeze the guest's file systems; waits for at most `seconds`.
    func freeze(_ uuid: String, seconds: Int) async throws
    /// Lets a frozen guest write again.
    func thaw(_ uuid: String, seconds: Int) async throws
    /// The domain's migratable XML, for another host.
    func movableXML(_ uuid: String) async throws -> String
    /// Sends the running guest to another host. Returns when the guest runs there and has left this host.
    func move(_ uuid: String, _ order: DomainMove) async throws
    /// The progress of a migration of the guest; nil if there is none.
    func moveState(_ uuid: String) async throws -> DomainMoveState?
    /// Cancels a migration of the guest, without waiting for the end. Succeeds if there is none.
    func abortMove(_ uuid: String) async throws
    /// Switches to post-copy: the guest runs on the other host before all of its memory has arrived.
    func beginPostCopy(_ uuid: String) async throws
    /// Statistics of a running domain under libvirt's names.
    func statistics(_ uuid: String) async throws -> [String: DomainStatistic]
    /// Sends a non-maskable interrupt to the guest.
    func injectNMI(_ uuid: String) async throws
    /// Sets a user's password through the guest agent.
    func setPassword(_ uuid: String, user: String, password: String) async throws
}

extension Hypervisor: HypervisorDriver {}
