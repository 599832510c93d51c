package import Contracts
package import JSON
package import Kernel

/// The agent's persistent record of a server, stored in the server's state file.
package struct LocalServerRecord: Sendable, Hashable {
    /// A plugged port, with the data needed to unplug it.
    package struct PluggedPort: Sendable, Hashable {
        package let id: String
        package let tap: String
        package let networkID: String

        package init(id: String, tap: String, networkID: String) {
            self.id = id
            self.tap = tap
            self.networkID = networkID
        }
    }

    package let serverID: String
    /// The highest epoch ever seen: a lower one is refused.
    package var highestEpoch = 0
    /// The generation accepted last: a lower one is ignored.
    package var generation = -1
    /// The generation that was reached last.
    package var appliedGeneration = -1
    /// The power that was reached last.
    package var appliedPower: DesiredPower?
    package var lastOperationID: String?
    /// Nil after the server was removed; the record is kept for a while so that a late message cannot recreate the server.
    package var desired: DesiredServer?
    package var goneSince: Timestamp?
    package var pluggedPorts: [PluggedPort] = []
    /// Jobs that have begun, until the desired state no longer has them.
    package var jobs: [LocalJob] = []
    /// The host's processors dedicated to the server, by virtual processor.
    package var pins: [Int] = []
    /// Whether the disks of a server that has moved are still here.
    package var hasKeptDisks = false
    /// The images of `disk_sources` from which the host has created disks, by disk.
    package var diskOrigins: [ServerSpec.LocalDisk: String] = [:]

    package init(serverID: String) { self.serverID = serverID }

    package var isGone: Bool { goneSince != nil }

    private static let format = 1

    /// The content of the state file.
    package var document: JSONValue {
        .object([
            "format": .integer(Int64(LocalServerRecord.format)), "server_id": .string(serverID),
            "highest_epoch": JSONValue(highestEpoch), "generation": JSONValue(generation),
            "applied_generation": JSONValue(appliedGeneration), "applied_power": JSONValue(appliedPower?.rawValue),
            "last_operation_id": JSONValue(lastOperationID),
            "gone_since": goneSince.map { .integer($0.microseconds) } ?? .null,
            "plugged_ports": .array(
                pluggedPorts.map {
                    ["id": .string($0.id), "tap": .string($0.tap), "network_id": .string($0.networkID)]
                }),
            "jobs": .array(jobs.map(\.document)), "pins": .array(pins.map { JSONValue($0) }),
            "kept_disks": .bool(hasKeptDisks),
            "disk_origins": .object(
                JSONObject(diskOrigins.map { ($0.key.rawValue, .string($0.value)) }.sorted { $0.0 < $1.0 })),
            "desired": desired?.source ?? .null,
        ])
    }

    /// - Throws: `FormError` when the file was written by a newer agent, or by something else.
    package init(document: JSONValue) throws(FormError) {
        let fields = try FieldReader(document, path: "record")
        let format = try fields.integer("format", in: 0...Int.max)
        guard format == LocalServerRecord.format else {
            throw fields.wrong("format", "is \(format); this agent knows \(LocalServerRecord.format)")
        }
        self.init(serverID: try fields.uuid("server_id"))
        highestEpoch = try fields.integer("highest_epoch", in: 0...Int.max)
        generation = try fields.integer("generation", in: -1...Int.max)
        appliedGeneration = try fields.integer("applied_generation", in: -1...Int.max)
        appliedPower = try fields.optionalText("applied_power").flatMap { DesiredPower(rawValue: $0) }
        lastOperationID = try fields.optionalText("last_operation_id")
        goneSince = try fields.optionalInteger("gone_since").map { Timestamp(microseconds: Int64($0)) }
        pluggedPorts = try fields.list("plugged_ports") { (port) throws(FormError) in
            PluggedPort(id: try port.text("id"), tap: try port.text("tap"), networkID: try port.text("network_id"))
        }
        jobs = try fields.list("jobs") { (job) throws(FormError) in try LocalJob(job) }
        // Earlier agents did not write it.
        pins = (fields.object["pins"]?.arrayValue ?? []).compactMap(\.intValue)
        hasKeptDisks = fields.object["kept_disks"]?.boolValue ?? false
        for member in fields.object["disk_origins"]?.objectValue?.members ?? [] {
            guard let disk = ServerSpec.LocalDisk(rawValue: member.name) else { continue }
            diskOrigins[disk] = member.value.stringValue
        }
        if let value = fields.object["desired"], !value.isNull { desired = try DesiredServer.decode(value) }
    }
}

extension LocalServerRecord {
    /// Disks on the host that remain from an earlier stay of the server and must not be used: the current content is in images from which
    /// they were not created, or comes from the host on which the guest still runs.
    ///
    /// - Throws: `StaleDisk` if the guest may have used such a disk, so that it cannot be replaced.
    package func staleDisks(_ server: DesiredServer) throws(StaleDisk) -> [ServerSpec.LocalDisk] {
        let isNew = appliedGeneration < 0
        // Only before the host has reported its endpoint: after that, the guest may be arriving.
        if server.power == .expected { return isNew ? [.root, .ephemeral] : [] }
        let others = server.diskSources.filter { diskOrigins[$0.key] != $0.value.id }.map(\.key).sorted { $0.rawValue > $1.rawValue }
        // Disks without a recorded origin were created by an earlier release, and may be in use by the guest.
        if isNew { return others }
        if let disk = others.first(where: { diskOrigins[$0] != nil }) { throw StaleDisk(disk: disk) }
        return []
    }
}

/// A disk from an earlier stay of the server that the guest may have used since.
package struct StaleDisk: Error, Sendable {
    package let disk: ServerSpec.LocalDisk
}

/// The verdict on a received desired state.
package enum Acceptance: Sendable, Hashable {
    case accepted
    /// Sent by a former holder of the lease.
    case staleEpoch(highest: Int)
    /// Overtaken by a newer state.
    case staleGeneration(current: Int)
}

extension LocalServerRecord {
    /// Accepts a desired state unless it is stale. A repeated one is accepted too, because it requests another report.
    package mutating func accept(_ server: DesiredServer) -> Acceptance {
        if server.epoch < highestEpoch { return .staleEpoch(highest: highestEpoch) }
        if server.generation < generation { return .staleGeneration(current: generation) }
        // A removed server is recreated only by a newer generation (for example when it migrates back).
        if isGone, server.generation == generation, server.power != .absent {
            return .staleGeneration(current: generation)
        }
        highestEpoch = server.epoch
        generation = server.generation
        desired = server
        if server.power != .absent { goneSince = nil }
        return .accepted
    }
}
