import Contracts
import ImageAccess
import Kernel

extension UsableImage {
    /// The data that a host needs to download the image.
    ///
    /// - Parameter administrator: the user whose rights the download needs; nil if the project's rights suffice.
    /// - Throws: 400 for an image without a disk format.
    func spec(administrator: ActingSubject?) throws -> ServerSpec.Image {
        guard let diskFormat else { throw ResourceError.badRequest("Image \(id) has no disk_format.") }
        let needed = max(size ?? 0, virtualSize ?? 0)
        return ServerSpec.Image(
            id: id, checksum: checksum, hashAlgorithm: hashAlgorithm, contentHash: hashValue, diskFormat: diskFormat, size: size ?? 0,
            minDiskGiB: minDisk,
            // The size of the root disk on its host if the flavor does not specify one.
            diskGiB: (needed + (1 << 30) - 1) >> 30, properties: TextMap(properties),
            administrator: administrator.map(RecordedSubject.init))
    }
}
