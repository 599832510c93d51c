import BlockStorageCore
import BlockStorageService
import Contracts
import Glibc
import JSON
import Kernel

/// The existing disks, which outlive all processes.
final class SimulatedStorage: @unchecked Sendable {
    struct Disk {
        var size: Int
        /// Nil if it is complete.
        var readyAt: UInt64?
    }

    var disks: [String: Disk] = [:]
    /// The directory of the hosts' copies of volumes in use. Absolute, and the same in every process.
    let directory = "/proc/self/cwd/volumes"

    init() { mkdir(directory, 0o700) }

    func copy(_ id: String) -> String { "\(directory)/\(ServerJob.VolumeCopies.fileName(ofSnapshot: id))" }
}

/// In-memory disks: slow, and sometimes failing before or after an operation.
struct SimulatedVolumeDriver: VolumeDriver {
    let process: SimulatedProcess

    var name: String { "file" }
    var capabilities: Set<String> { ["thin_provisioning_support"] }
    private var world: World { process.world }
    private var storage: SimulatedStorage { process.world.storage }

    private static func key(_ object: StoredObject) -> String { "\(object.kind.rawValue)-\(object.id)" }

    private func effect(_ what: String, _ body: () throws -> Void) async throws {
        try await process.reach(what)
        if world.happens(world.faults.storageTrouble, "storage trouble") {
            // Half of the failures happen after the operation.
            if world.random.below(2) == 0 { try body() }
            throw ResourceError.unavailable("the storage does not answer")
        }
        try body()
        world.trace("\(process.name) \(what)")
        try await process.reach("done \(what)")
    }

    func capacity() async throws -> DriverCapacity { DriverCapacity(total: 10_000, free: 10_000) }

    func create(_ object: StoredObject) async throws {
        try await effect("create \(object.id)") {
            if storage.disks[Self.key(object)] == nil { storage.disks[Self.key(object)] = .init(size: object.size) }
        }
    }

    func copy(_ source: StoredObject, to target: StoredObject) async throws -> Bool {
        try await make(target)
    }

    func fill(_ target: StoredObject, from image: SourceImage) async throws -> Bool { try await make(target) }

    private func make(_ target: StoredObject) async throws -> Bool {
        var isReady = false
        try await effect("copy to \(target.id)") {
            let key = Self.key(target)
            if storage.disks[key] == nil {
                let time = world.between(.milliseconds(10), .seconds(3))
                storage.disks[key] = .init(size: target.size, readyAt: world.executor.now + UInt64(time.microseconds) * 1000)
            }
            isReady = (storage.disks[key]?.readyAt ?? 0) <= world.executor.now
        }
        return isReady
    }

    func adopt(_ object: StoredObject) async throws {
        try await effect("adopt \(object.id)") {
            guard storage.disks[Self.key(object)] == nil else { return }
            guard access(storage.copy(object.id), F_OK) == 0 else {
                return world.violation("I6: the copy of a host is taken over as snapshot \(object.id) and is not there")
            }
            unlink(storage.copy(object.id))
            storage.disks[Self.key(object)] = .init(size: object.size)
        }
    }

    func extend(_ object: StoredObject, to size: Int) async throws {
        try await effect("extend \(object.id)") { storage.disks[Self.key(object)]?.size = size }
    }

    func restoreSize(_ object: StoredObject) async throws {}

    func delete(_ object: StoredObject) async throws {
        try await effect("delete \(object.id)") {
            // A machine without power gets the order to remove servers when it returns.
            let users = world.hosts.values.filter { !$0.isOff }.flatMap { $0.domains.values }.filter {
                $0.definition.volumes.contains(object.id) || $0.live?.volumes.contains(object.id) == true
            }
            if !users.isEmpty { world.violation("I6: disk \(object.id) is deleted while \(users.count) guests have it") }
            storage.disks[Self.key(object)] = nil
            unlink(storage.copy(object.id))
        }
    }

    func replace(_ object: StoredObject, by new: StoredObject) async throws {
        try await effect("replace \(object.id)") {
            guard let disk = storage.disks.removeValue(forKey: Self.key(new)) else { return }
            storage.disks[Self.key(object)] = disk
        }
    }

    func unfinished() async throws -> [UnfinishedDisk] { [] }
    func discard(_ disk: UnfinishedDisk) async throws {}

    func file(of object: StoredObject) -> String { "\(storage.directory)/\(object.name)" }

    func connection(_ object: StoredObject, readOnly: Bool, isShared: Bool) -> JSONObject {
        [
            "driver": "file", "path": .string("\(storage.directory)/\(object.id)"), "format": .string(object.format.rawValue),
            "read_only": .bool(readOnly),
        ]
    }
}
