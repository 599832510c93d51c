import Contracts
package import JSON
import Kernel

/// The disks that an image defines for servers created from it, in its property `block_device_mapping`. Images of servers that boot from
/// volumes have it.
package enum ImageDevices {
    /// Properties that define disks.
    package static let properties: Set<String> = ["block_device_mapping", "bdm_v2", "root_device_name"]
    private static let entriesMax = 25

    /// The devices of an image with these properties.
    ///
    /// - Throws: 400 for a mapping that cannot be parsed, and for one in the format before `bdm_v2`.
    package static func devices(_ properties: JSONObject, image: String) throws -> [DeviceRequest] {
        func refusal(_ reason: String) -> ResourceError { ImageMapping.refusal(image, reason) }
        let list = try ImageMapping.entries(properties, image: image)
        if list.isEmpty { return [] }
        guard isTrue(properties["bdm_v2"]) else { throw refusal("is in the form before version 2: it has no bdm_v2") }
        guard list.count <= entriesMax else { throw refusal("has more than \(entriesMax) entries") }
        let devices = try list.map { entry in
            guard entry.objectValue != nil else { throw refusal("has an entry that is not an object") }
            for (name, allowed) in [("device_type", ["disk", ""]), ("disk_bus", ["virtio", ""]), ("guest_format", ["swap", ""])] {
                if let text = entry[name]?.stringValue, !allowed.contains(text) {
                    throw refusal("has the \(name) '\(text.prefix(64))', which is not supported")
                }
            }
            var entry = entry.objectValue ?? [:]
            let source = entry["source_type"]?.stringValue ?? ""
            if entry["uuid"] == nil, let id = entry["\(source)_id"] { entry["uuid"] = id }
            return try DeviceRequest(.object(entry))
        }
        return devices.filter { !$0.isRemoval }
    }

    private static func isTrue(_ value: JSONValue?) -> Bool {
        value?.boolValue ?? ["1", "t", "true", "on", "y", "yes"].contains(value?.stringValue?.lowercased() ?? "")
    }
}

extension ServerRequest {
    /// Adds the devices that the image defines. A device of the request replaces the image's device with the same name, and its boot
    /// device the image's; one with `no_device` removes it.
    ///
    /// - Throws: 400 with Nova's message.
    package mutating func add(imageDevices defined: [DeviceRequest]) throws {
        let names = Set(devices.compactMap(\.device).map(ServerRequest.plainName))
        let bootsByRequest = devices.contains { $0.bootIndex == 0 }
        let kept = defined.filter { device in
            if let name = device.device, names.contains(ServerRequest.plainName(name)) { return false }
            return !(bootsByRequest && device.bootIndex == 0)
        }
        devices.removeAll(where: \.isRemoval)
        devices += kept
        // The image stands for the volumes, so the server boots from one of them.
        if kept.contains(where: { $0.bootIndex == 0 }) { imageID = nil }
        try settleDevices()
    }

    private static func plainName(_ name: String) -> String { name.hasPrefix("/dev/") ? String(name.dropFirst(5)) : name }

    /// Removes the disks that every server with the flavor has from the devices.
    ///
    /// - Parameters:
    ///   - ephemeralGiB: of the flavor, like `swapMiB`.
    /// - Throws: 400 if the request asks for other sizes.
    package mutating func settleLocalDisks(ephemeralGiB: Int, swapMiB: Int) throws {
        func check(_ disks: [DeviceRequest], _ name: String, _ size: Int, unit: String) throws {
            guard disks.count <= 1 else {
                throw ResourceError.badRequest("Block Device Mapping is Invalid: a server has one \(name) disk at most.")
            }
            guard let disk = disks.first else { return }
            guard size > 0 else {
                throw ResourceError.badRequest("Block Device Mapping is Invalid: the flavor has no \(name) disk.")
            }
            guard disk.size == nil || disk.size == size else {
                throw ResourceError.badRequest(
                    """
                    Block Device Mapping is Invalid: the \(name) disk has the flavor's size, \(size) \(unit): volume_size \
                    \(disk.size ?? 0) is not available.
                    """)
            }
            guard disk.tag == nil else {
                throw ResourceError.badRequest("Block Device Mapping is Invalid: the \(name) disk cannot have a tag.")
            }
        }
        let local = devices.filter { $0.destination == .local }
        try check(local.filter { !$0.isSwap }, "ephemeral", ephemeralGiB, unit: "GiB")
        try check(local.filter(\.isSwap), "swap", swapMiB, unit: "MiB")
        devices.removeAll { $0.destination == .local }
    }
}
