import BlockStorageCore
import ImageAccess
import Kernel

extension SourceImage {
    /// - Parameter subject: the subject on whose behalf the data is read.
    init(_ image: UsableImage, as subject: ActingSubject) {
        self.init(
            id: image.id, name: image.name, status: image.status, diskFormat: image.diskFormat, containerFormat: image.containerFormat,
            minDisk: image.minDisk, minRAM: image.minRAM, size: image.size ?? 0, virtualSize: image.virtualSize,
            checksum: image.checksum, hashValue: image.hashValue, properties: image.properties, subject: subject)
    }
}
