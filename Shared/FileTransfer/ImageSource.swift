package import Client
package import Kernel
package import NIOCore
import ServiceCatalog

/// A source of image data.
package protocol ImageSource: Sendable {
    /// Passes the image's bytes to `receive` in order.
    ///
    /// - Parameter subject: the subject whose access Image's policy decides about.
    /// - Throws: 404 if the image does not exist or the subject may not see it; 403 if the subject may not read it; 409 if it has
    ///   no data.
    func download(_ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void)
        async throws
}

/// Downloads images from the Image service.
package struct RESTImageSource: ImageSource {
    private let client: RESTClient

    package init(client: RESTClient) { self.client = client }

    package func download(
        _ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        let download = try await client.acting(for: subject).download(service: .image, path: "/images/\(imageID)/file")
        guard download.status != 204 else { throw ResourceError.conflict("image \(imageID) has no data") }
        for try await chunk in download.body { try await receive(chunk) }
    }
}
