import JSON

/// QEMU's drivers for the formats that are accepted here.
package enum DiskDriver: String, Sendable, CaseIterable {
    case raw, qcow2, vmdk, vdi, vpc

    /// The driver for an image's `disk_format`; nil for what is not accepted.
    package init?(diskFormat: String) {
        switch diskFormat {
        case "raw", "iso", "ami", "ari", "aki": self = .raw
        case "qcow2": self = .qcow2
        case "vmdk": self = .vmdk
        case "vdi": self = .vdi
        case "vhd": self = .vpc
        default: return nil
        }
    }
}

/// How QEMU opens a file: the driver of every layer is named, so nothing is probed, and nothing lies below it whatever
/// the file says.
struct DiskNode {
    let driver: DiskDriver
    let path: String

    /// The file name that QEMU takes for these options (`json:{…}`).
    var filename: String {
        let options: JSONValue = [
            "driver": .string(driver.rawValue), "backing": .null,
            "file": ["driver": "file", "filename": .string(path)],
        ]
        return "json:" + String(decoding: options.encoded, as: UTF8.self)
    }

    /// The same for `--target-image-opts`, which takes no JSON; the path must have no comma.
    var targetOptions: String { "driver=\(driver.rawValue),file.driver=file,file.filename=\(path)" }
}
