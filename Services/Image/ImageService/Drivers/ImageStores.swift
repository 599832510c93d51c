import Cryptography
import FileTransfer
import Glibc
package import ImageCore
import JSON
import Kernel
import NIOCore

/// One store with its name.
package struct NamedStore: Sendable {
    package let name: String
    package let driver: any ImageStoreDriver
}

/// The stores of the cloud.
package struct ImageStores: Sendable {
    /// All stores, the default first.
    let all: [NamedStore]
    /// The store of `image.directory`, which also has the staged data.
    let base: FileStore

    package init(base: FileStore) {
        self.base = base
        all = [NamedStore(name: StoreDeclaration.base, driver: base)]
    }

    /// - Parameter name: the name of the default store.
    /// - Throws: `FileError` for a directory that cannot be used, 400 for duplicate stores and an unknown default.
    package init(base: FileStore, _ declarations: [StoreDeclaration], default name: String = StoreDeclaration.base) throws {
        var stores = [NamedStore(name: StoreDeclaration.base, driver: base)]
        var places = [try base.identity()]
        for declaration in declarations {
            guard !stores.contains(where: { $0.name == declaration.name }) else {
                throw ResourceError.badRequest("There are two stores with the name '\(declaration.name)'.")
            }
            switch declaration.driver {
            case .file:
                let files = try FileStore(directory: declaration.place, sharing: base.threads)
                let place = try files.identity()
                // The cleanup task of one store would remove the data of the other one.
                guard !places.contains(place) else {
                    throw ResourceError.badRequest(
                        "The directory \(declaration.place) of the store '\(declaration.name)' has another store.")
                }
                places.append(place)
                stores.append(NamedStore(name: declaration.name, driver: files))
            }
        }
        guard let first = stores.firstIndex(where: { $0.name == name }) else {
            throw ResourceError.badRequest("The default store '\(name)' is not one of \(stores.map(\.name).joined(separator: ", ")).")
        }
        stores.insert(stores.remove(at: first), at: 0)
        self.base = base
        all = stores
    }

    var names: [String] { all.map(\.name) }
    var defaultStore: NamedStore { all[0] }

    subscript(_ name: String) -> (any ImageStoreDriver)? { all.first { $0.name == name }?.driver }

    /// Opens the data of an image in the first of its stores that has it.
    ///
    /// - Throws: 503 if no store has it: the image was deleted in the meantime, or the data is lost. The log shows which.
    func open(_ image: Image) async throws -> (data: any StoredData, driver: any ImageStoreDriver) {
        var problems: [String] = []
        for store in all where image.storeNames.contains(store.name) {
            guard let file = image.fileID else { break }
            do {
                let data = try await store.driver.open(file)
                if data.size == image.size { return (data, store.driver) }
                problems.append("\(store.name) has \(data.size) bytes instead of \(image.size ?? 0)")
            } catch let error where !(error is CancellationError) {
                problems.append("\(store.name): \(error)")
            }
        }
        for name in image.storeNames where self[name] == nil { problems.append("\(name) is not configured") }
        throw ResourceError.unavailable("the data of image \(image.id) cannot be opened: \(problems.joined(separator: "; "))")
    }

    /// Copies data to another store and compares the copy with its hash. Removes the leftovers of an interrupted attempt first.
    ///
    /// - Parameters:
    ///   - hash: SHA-512 of the data.
    ///   - progress: called with the number of bytes that were copied.
    /// - Throws: `ImageCopyFailure` if the store cannot be written or the data does not match the hash.
    func copy(
        _ file: String, _ source: any StoredData, on threads: WorkerThreads, to store: NamedStore, hash: String,
        _ progress: (Int) async throws -> Void
    ) async throws {
        let target: any IncomingData
        do {
            try await store.driver.removeLeftover(file)
            target = try await store.driver.receive(file)
        } catch let error as FileError { throw ImageCopyFailure(store: store.name, error) }
        do {
            var offset = 0
            while offset < source.size {
                let (start, count) = (offset, min(FileStore.chunkBytes, source.size - offset))
                let piece = try await threads.run { try source.read(start, count) }
                try await store.driver.threads.run { try target.append(piece) }
                offset += count
                try await progress(count)
            }
            try await store.driver.threads.run { try target.publish() }
            guard target.hashValue == hash else { throw ImageCopyFailure(store: store.name, reason: "the data is damaged") }
            target.release()
        } catch {
            do { try await store.driver.threads.run { try target.discard() } } catch let leftover as FileError {
                // The cleanup task removes it.
                throw ImageCopyFailure(store: store.name, leftover)
            }
            if let error = error as? FileError { throw ImageCopyFailure(store: store.name, error) }
            throw error
        }
    }
}

/// Data that could not be copied into a store.
struct ImageCopyFailure: Error {
    let store: String
    let reason: String
    let details: String

    init(store: String, reason: String, details: String = "") {
        (self.store, self.reason, self.details) = (store, reason, details)
    }

    init(store: String, _ error: FileError) {
        self.init(
            store: store, reason: error.isNoSpace ? "there is not enough space left" : "the data cannot be written",
            details: error.description)
    }
}
