import Client
import Kernel
import NIOCore

/// Image data from the Image service.
package struct RemoteImages: VolumeImageSource {
    private let client: RESTClient

    package init(client: RESTClient) { self.client = client }

    package func download(
        _ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        let download = try await client.acting(for: subject).download(service: .image, path: "/images/\(imageID)/file")
        for try await chunk in download.body { try await receive(chunk) }
    }
}
