import Client
import Kernel
import NIOCore

/// Images from the Image service.
package struct RESTImageSource: ImageSource {
    private let client: RESTClient

    package init(client: RESTClient) { self.client = client }

    /// - Throws: `PermanentFailure` when there is no such image, it has no data, or it may not be read.
    package func download(
        _ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void
    ) async throws {
        let download: RESTDownload
        do {
            download = try await client.acting(for: subject).download(service: .image, path: "/images/\(imageID)/file")
        } catch let error as ResourceError where error.code == .notFound {
            throw PermanentFailure("image \(imageID) does not exist")
        } catch let error as ResourceError where error.code == .forbidden || error.code == .conflict {
            throw PermanentFailure("image \(imageID) cannot be read: \(error.message)")
        }
        guard download.status != 204 else { throw PermanentFailure("image \(imageID) has no data") }
        for try await chunk in download.body { try await receive(chunk) }
    }
}
