package import Client
package import FileTransfer
package import JSON
package import Kernel
import ServiceCatalog

/// The Image service, for images that are created from volumes.
package protocol VolumeImages: ImageTarget {
    /// Creates an image without data under the id in `image`. Repeating it with the same id is a success.
    func createImage(_ image: JSONObject, as subject: ActingSubject) async throws
    /// Deletes an image; succeeds if it does not exist.
    func deleteImage(_ id: String, as subject: ActingSubject) async throws
}

/// The Image service itself, over REST.
package struct RESTVolumeImages: VolumeImages {
    private let client: RESTClient
    private let target: RESTImageTarget

    package init(client: RESTClient, threads: WorkerThreads) {
        self.client = client
        target = RESTImageTarget(client: client, threads: threads)
    }

    package func createImage(_ image: JSONObject, as subject: ActingSubject) async throws {
        let client = client.acting(for: subject)
        do { try await client.post(.image, "/images", .object(image)) } catch let error as ResourceError where error.code == .conflict {
            // The id is the workflow's own: an earlier attempt has created the image.
            _ = try await client.get(.image, "/images/\(image["id"]?.stringValue ?? "")")
        }
    }

    package func deleteImage(_ id: String, as subject: ActingSubject) async throws {
        try await client.acting(for: subject).delete(.image, "/images/\(id)", missingIsFine: true)
    }

    package func upload(
        _ imageID: String, from path: String, as subject: ActingSubject, _ progress: @escaping @Sendable (Int) -> Void
    ) async throws { try await target.upload(imageID, from: path, as: subject, progress) }

    package func look(_ imageID: String, as subject: ActingSubject) async throws -> UploadedImage {
        try await target.look(imageID, as: subject)
    }
}
