// Moving a running guest from one host to another.

/// The endpoint at which a host accepts a guest from another host. The target's agent reports it, and the source's agent receives it with
/// the order.
package struct MigrationEndpoint: Codable, Sendable, Hashable {
    /// libvirt's connection URI of the expecting host, as other hosts reach it.
    package var uri: String
    /// The host name or address that the guest's memory and disks are sent to. Nil for libvirt's choice.
    package var address: String?
    /// The directory of the server's files.
    package var directory: String
    /// The backing file of the root disk, which the host has created from the same image. Nil if there is none, or if the root disk is a
    /// volume.
    package var backing: String?
    /// Path of QEMU.
    package var emulator: String?
    /// Address on which the guest's display listens. Nil if it does not listen.
    package var vncListen: String?

    private enum CodingKeys: String, CodingKey {
        case uri, address, directory, backing, emulator
        case vncListen = "vnc_listen"
    }

    package init(uri: String, address: String?, directory: String, backing: String? = nil, emulator: String?, vncListen: String?) {
        self.backing = backing
        self.uri = uri
        self.address = address
        self.directory = directory
        self.emulator = emulator
        self.vncListen = vncListen
    }
}

extension ServerJob {
    /// Sends the running guest to another host, which expects it. The job is done when the guest has left. Until the job is removed from
    /// the desired state, the host neither starts nor changes the guest.
    package struct Migration: Codable, Sendable, Hashable {
        package var endpoint: MigrationEndpoint
        /// The server's volumes, with their connections on the other host.
        package var volumes: [ServerSpec.Volume]
        /// Whether to force the move to complete, even if the guest has to be paused.
        package var completes: Bool?
        /// Whether to abort the move. The job then ends as failed, or as done if the guest has already left.
        package var isCancelled: Bool?

        private enum CodingKeys: String, CodingKey {
            case endpoint, volumes, completes
            case isCancelled = "cancelled"
        }

        package init(endpoint: MigrationEndpoint, volumes: [ServerSpec.Volume]) {
            self.endpoint = endpoint
            self.volumes = volumes
        }
    }
}

/// The progress of a move, in bytes.
package struct MigrationProgress: Codable, Sendable, Hashable {
    package struct Amount: Codable, Sendable, Hashable {
        package var total: Int
        package var processed: Int
        package var remaining: Int

        package init(total: Int, processed: Int, remaining: Int) {
            self.total = total
            self.processed = processed
            self.remaining = remaining
        }
    }

    package var memory: Amount
    package var disk: Amount

    package init(memory: Amount, disk: Amount) {
        self.memory = memory
        self.disk = disk
    }

    /// Percentage of the data that has been sent.
    package var percent: Int {
        let total = memory.total + disk.total
        guard total > 0 else { return 0 }
        let remaining = min(total, max(0, memory.remaining + disk.remaining))
        return (total - remaining) * 100 / total
    }
}
