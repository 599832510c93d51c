import JSON

/// QEMU's drivers for the supported formats.
package enum DiskDriver: String, Sendable, CaseIterable {
    case raw, qcow2, vmdk, vdi, vpc

    /// The driver for an image's `disk_format`; nil for an unsupported format.
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

/// How QEMU opens a file: every layer has an explicit driver, so that nothing is probed, and there is no backing file beyond
/// `below`, regardless of the file's contents.
struct DiskNode {
    let driver: DiskDriver
    let path: String
    /// The layers below, from the next one down.
    var below: [DiskNode] = []

    private var options: JSONValue {
        let next = below.first.map { DiskNode(driver: $0.driver, path: $0.path, below: Array(below.dropFirst())) }
        return [
            "driver": .string(driver.rawValue), "backing": next?.options ?? .null,
            "file": ["driver": "file", "filename": .string(path)],
        ]
    }

    /// The file name for QEMU with these options (`json:{…}`).
    var filename: String { "json:" + String(decoding: options.encoded, as: UTF8.self) }

    /// The same for `--target-image-opts`, which does not support JSON; the path must not contain a comma.
    var targetOptions: String { "driver=\(driver.rawValue),file.driver=file,file.filename=\(path)" }
}
