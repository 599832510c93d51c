import Client
import Kernel
import NIOCore

/// Where the data of images comes from.
package protocol ImageSource: Sendable {
    /// Hands the image's bytes to `receive` in order.
    ///
    /// - Parameter subject: whom Image's policy decides about.
    /// - Throws: 404 when there is no such image, or none that the subject may see; 403 when the subject may not read it; 409 when it has
    ///   no data.
    func download(_ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void)
        async throws
}

/// Images from the Image service.
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
