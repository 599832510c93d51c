package import BlockStorageCore
package import JSON
import Kernel
import NIOCore

/// A storage backend. All calls are idempotent, and may continue work that another process has begun.
package protocol VolumeDriver: Sendable {
    /// `file`
    var name: String { get }

    /// Names of the capabilities that volume types may require by `<is> True`, as pools report them.
    var capabilities: Set<String> { get }

    /// Capacity of the backend.
    func capacity() async throws -> DriverCapacity

    /// Creates an empty disk; an existing one is kept.
    func create(_ object: StoredObject) async throws

    /// Starts or checks a copy of `source`, which must not be written during the copy.
    ///
    /// - Returns: whether the copy is complete; otherwise call again.
    /// - Throws: the reason if the copy failed, once; the next call starts a new copy.
    func copy(_ source: StoredObject, to target: StoredObject) async throws -> Bool

    /// Takes over the copy that a hypervisor host has written as the disk's unfinished file; an existing disk is kept.
    ///
    /// - Throws: `ImageRefusal` if the file is not a disk of the object's format and size.
    func adopt(_ object: StoredObject) async throws

    /// Replaces a disk by another one; does nothing if that was done before.
    func replace(_ object: StoredObject, by new: StoredObject) async throws

    /// Starts or checks filling a new disk with an image's content; otherwise like `copy`.
    func fill(_ target: StoredObject, from image: SourceImage) async throws -> Bool

    /// Extends a disk; does nothing if it already has the size.
    func extend(_ object: StoredObject, to size: Int) async throws

    /// Enlarges a disk that is smaller than `object` says. A host makes a volume's disk smaller while it copies the smaller volume of a
    /// guest to it, and may be lost before it has enlarged the disk again.
    func restoreSize(_ object: StoredObject) async throws

    /// Deletes a disk and its leftovers; succeeds if it does not exist.
    ///
    /// - Throws: 503 while it is still being written; call again.
    func delete(_ object: StoredObject) async throws

    /// Disks that are not complete: copies in progress, and leftovers of failed ones.
    func unfinished() async throws -> [UnfinishedDisk]

    /// Deletes the files of a disk that will not be completed; does nothing while another process writes them.
    func discard(_ disk: UnfinishedDisk) async throws

    /// The file to read a disk from; nothing may be writing the disk.
    func file(of object: StoredObject) -> String

    /// How a host connects to the disk, in the format of the agent's messages.
    ///
    /// - Parameter isShared: whether other hosts may connect to it at the same time.
    func connection(_ object: StoredObject, readOnly: Bool, isShared: Bool) -> JSONObject
}

/// A disk that is not complete.
package struct UnfinishedDisk: Sendable, Hashable {
    package let kind: StoredObject.Kind
    package let id: String

    package init(_ kind: StoredObject.Kind, _ id: String) {
        self.kind = kind
        self.id = id
    }
}

/// Capacity for disks, in GiB.
package struct DriverCapacity: Sendable, Hashable {
    package let total: Int
    package let free: Int

    package init(total: Int, free: Int) {
        self.total = total
        self.free = free
    }
}
