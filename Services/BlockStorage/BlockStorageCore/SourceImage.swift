import ImageFormat
package import JSON
package import Kernel

/// An image from which a volume is to be created.
package struct SourceImage: Sendable {
    package var id: String
    package var name: String?
    package var status: String
    package var diskFormat: String?
    package var containerFormat: String?
    /// GB.
    package var minDisk: Int
    /// MiB.
    package var minRAM: Int
    /// Bytes of the data, and of the disk in it where that is known.
    package var size: Int
    package var virtualSize: Int?
    package var checksum: String?
    package var hashValue: String?
    package var properties: JSONObject
    /// The subject on whose behalf the image is read.
    package var subject: ActingSubject

    package init(
        id: String, name: String?, status: String, diskFormat: String?, containerFormat: String?, minDisk: Int,
        minRAM: Int, size: Int, virtualSize: Int?, checksum: String?, hashValue: String?, properties: JSONObject,
        subject: ActingSubject
    ) {
        self.id = id
        self.name = name
        self.status = status
        self.diskFormat = diskFormat
        self.containerFormat = containerFormat
        self.minDisk = minDisk
        self.minRAM = minRAM
        self.size = size
        self.virtualSize = virtualSize
        self.checksum = checksum
        self.hashValue = hashValue
        self.properties = properties
        self.subject = subject
    }

    /// Formats from which volumes can be created.
    private static let diskFormats: Set<String> = ["raw", "iso", "ami", "ari", "aki", "qcow2", "vmdk", "vdi", "vhd"]

    /// - Throws: 400 with the reason why a volume of `size` GiB cannot be created from it.
    package func check(volumeSize: Int) throws {
        guard status == "active" else {
            throw ResourceError.badRequest("Invalid image: Image \(id) is not active.")
        }
        guard let containerFormat, ContainerFormats.bareDisks.contains(containerFormat),
            SourceImage.diskFormats.contains(diskFormat ?? "")
        else {
            throw ResourceError.badRequest(
                """
                Invalid image: Image \(id) with container format '\(containerFormat ?? "none")' and disk format \
                '\(diskFormat ?? "none")' cannot be used to create a volume.
                """
            )
        }
        let bytes = max(size, virtualSize ?? 0)
        guard bytes <= volumeSize << 30 else {
            throw ResourceError.badRequest(
                """
                Invalid input received: Size of specified image \((bytes + (1 << 30) - 1) >> 30)GB is larger than \
                volume size \(volumeSize)GB.
                """
            )
        }
        guard minDisk <= volumeSize else {
            throw ResourceError.badRequest(
                "Invalid input received: Volume size \(volumeSize)GB cannot be smaller than the image minDisk size \(minDisk)GB.")
        }
    }

    /// The image metadata of the volume, with all values as strings, as clients expect.
    package var metadata: JSONObject {
        var result = properties
        let known: [(String, String?)] = [
            ("image_id", id), ("image_name", name), ("checksum", checksum), ("container_format", containerFormat),
            ("disk_format", diskFormat), ("min_disk", String(minDisk)), ("min_ram", String(minRAM)),
            ("size", String(size)),
        ]
        for (name, value) in known { if let value { result[name] = .string(value) } }
        return result
    }
}
