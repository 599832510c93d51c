package import ComputeAgentCore
package import Kernel
import Libvirt
package import Logging

/// Carries out actions on a server's domain.
package struct DomainDriver: Sendable {
    let hypervisor: any HypervisorDriver
    let options: DomainOptions
    let moves: MoveOptions
    let slots: MoveSlots
    let disks: ServerDisks
    let ambient: Ambient
    private let shutdownTimeout: Duration
    let log: Logger

    private static let poll = Duration.milliseconds(200)
    /// How long a guest may take to release a device, and the interval of the requests.
    private static let detachTimeout = Duration.seconds(30)
    private static let detachRepeat = 25

    package init(
        hypervisor: any HypervisorDriver, options: DomainOptions, disks: ServerDisks, ambient: Ambient,
        shutdownTimeout: Duration, moves: MoveOptions = MoveOptions(), log: Logger
    ) {
        self.moves = moves
        slots = MoveSlots(width: moves.parallel)
        self.hypervisor = hypervisor
        self.options = options
        self.disks = disks
        self.ambient = ambient
        self.shutdownTimeout = shutdownTimeout
        self.log = log
    }

    private func xml(_ server: DesiredServer) -> DomainXML {
        DomainXML(server: server, files: disks.files(server.id), options: options)
    }

    // MARK: looking

    /// The server's domain; nil when there is none.
    package func observe(_ serverID: String) async throws -> ObservedDomain? {
        guard let summary = try await hypervisor.domain(serverID) else { return nil }
        var observed = DomainDriver.observed(summary)
        guard summary.isActive else { return observed }
        do { try observed.readDevices(xml: try await hypervisor.xml(serverID, inactive: false)) } catch let error as LibvirtError
            where error.isNoDomain
        {
            return nil
        }
        return observed
    }

    static func observed(_ summary: DomainSummary) -> ObservedDomain {
        let power: ObservedPower =
            switch summary.state {
            case .running, .blocked, .pmSuspended: .running
            case .paused: .paused
            case .shuttingDown: .stopping
            case .shutoff, .crashed, .noState: .shutoff
            }
        let reason: OffReason =
            switch summary.shutoffReason {
            case .guestShutdown: .guest
            case .destroyed, .migrated: .destroyed
            case .saved: .saved
            case .failed, .unknown: .failure
            }
        var observed = ObservedDomain(
            power: power, offReason: power == .shutoff ? reason : nil, hasManagedSave: summary.hasManagedSave)
        observed.isMoving = summary.isMoving
        return observed
    }

    // MARK: power

    /// Defines the domain, in place of an earlier definition.
    ///
    /// - Parameter pins: the host's processors dedicated to the server.
    /// - Throws: `PermanentFailure` if libvirt refused the definition or the root disk's backing file is not the server's image,
    ///   `LibvirtError`.
    package func define(_ server: DesiredServer, pins: [Int]) async throws {
        try await disks.prepareTPM(server)
        let backing = try await disks.backing(server)
        let rescue = try await disks.rescueBacking(server)
        let xml = DomainXML(
            server: server, files: disks.files(server.id), options: options, backing: backing, rescueBacking: rescue,
            pins: pins, processor: try await processor(server))
        try await definitely { try await hypervisor.define(xml: xml.document.rendered) }
    }

    /// The common features of the processors of the hosts that the server must be able to move between; nil if there are no such hosts.
    private func processor(_ server: DesiredServer) async throws -> XMLTree? {
        guard !server.processorDefinitions.isEmpty else { return nil }
        do {
            let text = try await hypervisor.baselineProcessor(
                emulator: options.emulator ?? "/usr/bin/qemu-system-x86_64", machine: options.machine,
                type: options.virtType.rawValue, definitions: server.processorDefinitions)
            return try XMLTree.parse(text)
        } catch let error as LibvirtError where !error.isConnectionFailure {
            // A running guest keeps its processor.
            if let running = try await runningProcessor(server.id) { return running }
            throw PermanentFailure("the processors of the aggregate's hosts have no model in common", details: error.message)
        }
    }

    /// Model and features of a running guest's processor, from its definition.
    private func runningProcessor(_ serverID: String) async throws -> XMLTree? {
        guard try await hypervisor.domain(serverID)?.isActive == true,
            let cpu = try XMLTree.parse(try await hypervisor.xml(serverID, inactive: true)).child("cpu"), cpu.child("model") != nil
        else { return nil }
        return XMLTree("cpu", [:], cpu.children.filter { ["model", "vendor", "feature"].contains($0.name) })
    }

    /// Starts the defined domain.
    ///
    /// - Throws: `PermanentFailure` when libvirt refused the definition, `LibvirtError`.
    package func start(_ serverID: String, paused: Bool) async throws {
        try await definitely { try await hypervisor.start(serverID, paused: paused) }
    }

    /// Stops the guest's processors, keeping its memory.
    package func suspend(_ serverID: String) async throws { try await hypervisor.suspend(serverID) }
    /// Lets a paused guest run on.
    package func resume(_ serverID: String) async throws { try await hypervisor.resume(serverID) }
    /// Saves the guest's memory to disk and stops it; the next start resumes from there.
    package func save(_ serverID: String) async throws { try await hypervisor.managedSave(serverID) }
    /// Deletes the saved memory, so that the next start boots.
    package func discardSave(_ serverID: String) async throws { try await hypervisor.discardManagedSave(serverID) }
    /// Powers the guest off; succeeds if it does not exist.
    package func destroy(_ serverID: String) async throws {
        do { try await hypervisor.destroy(serverID) } catch let error as LibvirtError where error.isNoDomain { return }
    }
    /// Removes the definition.
    package func undefine(_ serverID: String) async throws { try await hypervisor.undefine(serverID) }

    /// Asks the guest to shut down; one that has not after the time allowed is stopped.
    package func shutdown(_ serverID: String) async throws {
        let deadline = ambient.time.monotonicNanoseconds() + UInt64(shutdownTimeout.microseconds) * 1000
        var asks = 0
        while ambient.time.monotonicNanoseconds() < deadline {
            guard try await hypervisor.domain(serverID)?.isActive == true else { return }
            // A guest that is still booting misses the first request, so repeat it.
            if asks % 25 == 0 {
                do { try await hypervisor.shutdown(serverID, by: .acpiButton) } catch let error as LibvirtError
                    where error.isInvalidState || error.isNoDomain
                {
                    return
                }
            }
            asks += 1
            try await ambient.time.sleep(for: DomainDriver.poll)
        }
        log.notice("the guest did not shut down in time and is stopped", metadata: ["server": "\(serverID)"])
        try await destroy(serverID)
    }

    /// Retrying does not help if libvirt refused the definition.
    private func definitely(_ body: () async throws -> Void) async throws {
        do { try await body() } catch let error as LibvirtError where error.isBadDefinition {
            log.error("libvirt refused the definition", metadata: ["error": "\(error)"])
            throw PermanentFailure("the hypervisor refuses the server's definition", details: error.message)
        }
    }

    // MARK: devices

    /// Plugs a volume into the running guest.
    ///
    /// - Throws: 503 when the file of the volume is not there, `PermanentFailure`, `LibvirtError`.
    package func attachVolume(_ volume: DesiredVolume, to server: DesiredServer) async throws {
        if case .file(let path, _, _) = volume.connection, !disks.hasVolume(path) {
            throw ResourceError.unavailable("volume \(volume.volumeID): \(path) does not exist")
        }
        try await definitely {
            try await hypervisor.attach(server.id, device: xml(server).volumeDisk(volume).rendered, to: .live)
        }
    }

    /// Plugs a port's interface into the running guest.
    ///
    /// - Throws: `PermanentFailure`, `LibvirtError`.
    package func attachPort(_ port: DesiredPort, to server: DesiredServer) async throws {
        try await definitely {
            try await hypervisor.attach(server.id, device: xml(server).interface(port).rendered, to: .live)
        }
    }

    /// Asks the running guest for the disk at `target` (`vdb`) until it is gone.
    package func detachVolume(_ target: String, from serverID: String) async throws {
        try await detach(serverID, "disk \(target)") { devices in
            devices.all("disk").first { $0.child("target")?["dev"] == target }
        }
    }

    /// Asks the running guest for the interface with this address until it is gone.
    package func detachPort(_ mac: MACAddress, from serverID: String) async throws {
        try await detach(serverID, "interface \(mac)") { devices in
            devices.all("interface").first { $0.child("mac")?["address"].flatMap { MACAddress($0) } == mac }
        }
    }

    /// Asks the guest for a device until it is gone.
    private func detach(
        _ serverID: String, _ what: String, find: @Sendable (XMLTree) -> XMLTree?
    ) async throws {
        let deadline = ambient.time.monotonicNanoseconds() + UInt64(DomainDriver.detachTimeout.microseconds) * 1000
        var round = 0
        while true {
            guard try await hypervisor.domain(serverID)?.isActive == true else { return }
            let document = try XMLTree.parse(try await hypervisor.xml(serverID, inactive: false))
            guard let device = document.child("devices").flatMap({ find($0) }) else { return }
            guard ambient.time.monotonicNanoseconds() < deadline else {
                throw ResourceError.unavailable("the guest of \(serverID) did not release \(what)")
            }
            if round % DomainDriver.detachRepeat == 0 {
                do { try await hypervisor.detach(serverID, device: device.rendered, from: .live) } catch let error as LibvirtError {
                    if error.isConnectionFailure { throw error }
                    // Usually an earlier request is still in progress; the next check decides.
                    log.debug("detach", metadata: ["server": "\(serverID)", "device": "\(what)", "error": "\(error)"])
                }
            }
            round += 1
            try await ambient.time.sleep(for: DomainDriver.poll)
        }
    }
}
