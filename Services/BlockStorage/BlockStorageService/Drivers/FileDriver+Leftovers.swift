import BlockStorageCore
import FileTransfer
import Foundation
import Glibc
import Kernel

/// Unfinished copies that nothing will complete. Hosts write their copies without this service, and may still do so after a snapshot has
/// failed.
extension FileDriver {
    package func unfinished() async throws -> [UnfinishedDisk] {
        try await threads.run { [directory] in
            try FileManager.default.contentsOfDirectory(atPath: directory).compactMap { name in
                guard name.hasSuffix(".part"), let dash = name.firstIndex(of: "-"),
                    let kind = StoredObject.Kind(rawValue: String(name[..<dash])),
                    let id = UUID128(String(name[name.index(after: dash)...].dropLast(".part".count)))
                else { return nil }
                return UnfinishedDisk(kind, id.description)
            }
        }
    }

    package func discard(_ disk: UnfinishedDisk) async throws {
        let object = StoredObject(disk.kind, disk.id, project: "", format: .raw, size: 0)
        try await threads.run { [self] in
            guard let lock = try lock(object) else { return }
            defer { close(lock) }
            for path in [partPath(object), imagePath(object)] { try FileDriver.remove(path) }
            try FileDriver.remove(lockPath(object))
        }
    }
}
