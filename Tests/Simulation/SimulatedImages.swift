import BlockStorageService
import ComputeService
import Cryptography
import Database
import FileTransfer
import JSON
import Kernel
import NIOCore

/// The Image service, as Compute and the agents use it. All images have the same data.
struct SimulatedImages: ImageSource, ImageTarget, ImageClient, VolumeImages {
    let process: SimulatedProcess

    /// A raw disk.
    static let content = [UInt8](repeating: 0, count: 510) + [0x55, 0xaa]
    static let hash = Hexadecimal.encode(HashAlgorithm.sha512.hash(content))

    private var world: World { process.world }

    /// A request that may or may not take effect, regardless of its answer.
    private func effect(_ what: String, _ body: () throws -> Void) async throws {
        try await process.reach(what)
        if world.happens(world.faults.storageTrouble, "image trouble") {
            if world.random.below(2) == 0 { try body() }
            throw ResourceError.unavailable("Image does not answer")
        }
        try body()
        world.trace("\(process.name) \(what)")
        try await process.reach("done \(what)")
    }

    private func status(_ id: String) throws -> String {
        let rows = try world.store.look { try $0.query("SELECT status FROM images WHERE id = \(id)::uuid") }
        guard let row = rows.first else { throw ResourceError.notFound("Image \(id) could not be found.") }
        return try row.string("status")
    }

    // MARK: data

    func download(
        _ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        try await process.reach("image")
        guard try status(imageID) == "active" else { throw ResourceError.conflict("image \(imageID) has no data") }
        try await process.ambient.time.sleep(for: world.between(.milliseconds(10), .seconds(2)))
        // A download may end early.
        let isCut = world.happens(world.faults.storageTrouble, "image cut")
        try await receive(ByteBuffer(bytes: isCut ? Array(SimulatedImages.content.prefix(100)) : SimulatedImages.content))
    }

    func upload(
        _ imageID: String, from path: String, as subject: ActingSubject, _ progress: @escaping @Sendable (Int) -> Void
    ) async throws {
        guard try status(imageID) == "queued" else { throw ResourceError.conflict("Image \(imageID) has data") }
        try await process.ambient.time.sleep(for: world.between(.milliseconds(10), .seconds(20)))
        progress(SimulatedImages.content.count)
        let now = world.now
        try await effect("upload \(imageID)") {
            guard try status(imageID) == "queued" else { throw ResourceError.conflict("Image \(imageID) has data") }
            _ = try world.store.look { connection in
                try connection.execute(
                    """
                    UPDATE images SET status = 'active', disk_format = 'raw', size = \(SimulatedImages.content.count), checksum = 'c',
                        os_hash_algo = 'sha512', os_hash_value = \(SimulatedImages.hash), file_id = id, updated_at = \(now)
                    WHERE id = \(imageID)::uuid
                    """)
            }
        }
    }

    func look(_ imageID: String, as subject: ActingSubject) async throws -> UploadedImage {
        try await process.reach("look at image")
        return UploadedImage(status: try status(imageID), size: SimulatedImages.content.count)
    }

    // MARK: images

    func createImage(_ image: JSONObject, as subject: ActingSubject) async throws {
        let now = world.now
        try await effect("create image") {
            _ = try world.store.look { connection in
                try connection.execute(
                    """
                    INSERT INTO images (id, project_id, name, status, visibility, disk_format, container_format, created_at, updated_at)
                    VALUES (\(image["id"]?.stringValue), \(subject.project), \(image["name"]?.stringValue), 'queued', 'private', 'qcow2',
                        'bare', \(now), \(now)) ON CONFLICT DO NOTHING
                    """)
            }
        }
    }

    func activateEmpty(_ id: String, as subject: ActingSubject) async throws {
        let now = world.now
        try await effect("activate image") {
            _ = try world.store.look { connection in
                try connection.execute(
                    """
                    UPDATE images SET status = 'active', size = 0, file_id = id, updated_at = \(now)
                    WHERE id = \(id)::uuid AND status = 'queued'
                    """)
            }
        }
    }

    func deleteImage(_ id: String, as subject: ActingSubject) async throws {
        try await effect("delete image") {
            _ = try world.store.look { connection in
                try connection.execute("DELETE FROM images WHERE id = \(id)::uuid AND project_id = \(subject.project)")
            }
        }
    }

    // The simulated clients do not use Compute's image proxy.
    func image(_ id: String, as subject: ActingSubject) async throws -> JSONObject { throw SimulatedImages.unused }
    func images(_ query: [(String, String)], as subject: ActingSubject) async throws -> ImagePage { throw SimulatedImages.unused }
    func changeImage(_ id: String, _ patch: [JSONValue], as subject: ActingSubject) async throws { throw SimulatedImages.unused }

    private static let unused = ResourceError(.notImplemented, "the simulation has no such call of Image")

    func address(of id: String) async throws -> String { World.url("image") + "/images/\(id)" }
}
