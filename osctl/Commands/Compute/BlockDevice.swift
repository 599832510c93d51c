import JSON

/// A disk of a new server, as one option: `source=image,id=debian,destination=volume,size=10,boot-index=0`.
///
/// The keys are those of the other clients (`source_type`, `destination_type`, `volume_size`, `uuid`, …), and shorter ones.
enum BlockDevice {
    private static let keys: [String: String] = [
        "uuid": "uuid", "id": "uuid", "source-type": "source_type", "source": "source_type", "destination-type": "destination_type",
        "destination": "destination_type", "volume-size": "volume_size", "size": "volume_size", "volume-type": "volume_type",
        "boot-index": "boot_index", "bootindex": "boot_index", "delete-on-termination": "delete_on_termination",
        "device-name": "device_name", "device-type": "device_type", "disk-bus": "disk_bus", "guest-format": "guest_format", "tag": "tag",
    ]

    /// The member of `block_device_mapping_v2`.
    ///
    /// - Throws: `CommandFailure` naming a key or value that is not one.
    static func member(_ option: AssignmentList, _ api: CloudAPI) async throws -> JSONValue {
        try option.check("--block-device", Set(keys.keys))
        var member = JSONObject()
        for (key, value) in option.values.sorted(by: { $0.key < $1.key }) {
            guard let name = keys[key] else { continue }
            guard member[name] == nil else { throw CommandFailure("--block-device has \(name) twice.") }
            member[name] = try json(name, value)
        }
        let source = member["source_type"]?.stringValue ?? (member["uuid"] == nil ? "blank" : "volume")
        member["source_type"] = .string(source)
        if member["boot_index"] == nil { member["boot_index"] = -1 }
        if member["destination_type"] == nil { member["destination_type"] = source == "blank" ? "local" : "volume" }
        if let named = member["uuid"]?.stringValue {
            switch source {
            case "volume": member["uuid"] = .string(try await api.id(Volumes.kind, named))
            case "image": member["uuid"] = .string(try await api.id(Images.kind, named))
            case "snapshot": member["uuid"] = .string(try await api.id(Snapshots.kind, named))
            default: break
            }
        }
        return .object(member)
    }

    private static func json(_ name: String, _ text: String) throws -> JSONValue {
        switch name {
        case "volume_size", "boot_index":
            guard let number = Int(text) else { throw CommandFailure("--block-device: \(name) must be a number, not \(text).") }
            return JSONValue(number)
        case "delete_on_termination":
            guard let flag = Bool(text.lowercased()) else {
                throw CommandFailure("--block-device: \(name) must be true or false, not \(text).")
            }
            return .bool(flag)
        default: return .string(text)
        }
    }
}
