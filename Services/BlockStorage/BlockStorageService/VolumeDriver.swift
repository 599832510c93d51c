import BlockStorageCore
import JSON
import Kernel
import NIOCore

/// Where a service keeps its disks. All calls may be repeated, and another process may have begun them.
package protocol VolumeDriver: Sendable {
    /// `file`
    var name: String { get }

    /// Names of the capabilities that volume types may require by `<is> True`, as pools report them.
    var capabilities: Set<String> { get }

    /// The room of the whole backend.
    func capacity() async throws -> DriverCapacity

    /// Makes an empty disk; one that is there already is kept.
    func create(_ object: StoredObject) async throws

    /// Begins or looks after copying `source`, which nobody writes meanwhile.
    ///
    /// - Returns: whether the copy is complete; otherwise ask again.
    /// - Throws: why the copy failed, once; asking again begins anew.
    func copy(_ source: StoredObject, to target: StoredObject) async throws -> Bool

    /// Begins or looks after filling a new disk with an image's content; otherwise as `copy`.
    func fill(_ target: StoredObject, from image: SourceImage) async throws -> Bool

    /// Makes a disk larger; one that is so large already is left alone.
    func extend(_ object: StoredObject, to size: Int) async throws

    /// Removes a disk and whatever is left of it; that it is gone already is success.
    ///
    /// - Throws: 503 while it is still being written; ask again.
    func delete(_ object: StoredObject) async throws

    /// How a host reaches the disk, in the form of the agent's messages.
    func connection(_ object: StoredObject, readOnly: Bool) -> JSONObject
}

/// Room for disks, in GiB.
package struct DriverCapacity: Sendable, Hashable {
    package let total: Int
    package let free: Int

    package init(total: Int, free: Int) {
        self.total = total
        self.free = free
    }
}
