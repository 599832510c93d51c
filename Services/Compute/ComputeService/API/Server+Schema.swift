import WebAPI

/// Bodies of requests about servers.
enum ServerSchema {
    static let metadata = BodySchema.object([], additional: .values(.text))
    static let tag = BodySchema.string(min: 1, max: 60, format: nil)
    /// The maximum number of tags of a server.
    static let tagsMax = 50
    static let tags = BodySchema.array(tag, min: 0, max: tagsMax)

    private static let device = BodySchema.object([
        .init("source_type", .enumeration(["volume", "image", "snapshot", "blank"])),
        .init("destination_type", .nullable(.enumeration(["local", "volume"]))), .init("uuid", .nullable(.uuid)),
        .init("boot_index", .nullable(.integer)),
        .init("volume_size", .nullable(.oneOf([.integer(min: 0, max: 1 << 20), .enumeration([""])]))),
        .init("delete_on_termination", .nullable(.boolean)), .init("device_name", .nullable(.text)),
        // Supported values: disks on the virtio bus.
        .init("guest_format", .nullable(.enumeration(["swap", ""]))), .init("device_type", .nullable(.enumeration(["disk", ""]))),
        .init("disk_bus", .nullable(.enumeration(["virtio", ""]))), .init("no_device", .nullable(.oneOf([.boolean, .enumeration([""])]))),
        // Nova lost this member in 2.33 and has it again from 2.42 on.
        .init("tag", .nullable(.text(60)), versions: .between(32, 32)), .init("tag", .nullable(.text(60)), versions: .from(42)),
        .init("volume_type", .nullable(.text), versions: .from(67)),
    ])

    /// A file to inject. The project's quota limits number and size.
    static let file = BodySchema.object([
        .init("path", .string(min: 1, max: 65_535, format: nil), required: true),
        .init("contents", .string(min: 0, max: 1 << 20, format: .base64), required: true),
    ])

    private static let interface = BodySchema.object([
        .init("uuid", .nullable(.uuid)), .init("port", .nullable(.uuid)),
        .init("fixed_ip", .nullable(.string(min: 1, max: 45, format: .ip))),
        // Nova lost this member in 2.37 and has it again from 2.42 on.
        .init("tag", .nullable(.text(60)), versions: .between(32, 36)), .init("tag", .nullable(.text(60)), versions: .from(42)),
    ])

    private static let interfaces = BodySchema.array(interface, min: 0, max: 64)

    static let create = BodySchema.object([
        .init("server", .object(createProperties), required: true), .init("os:scheduler_hints", hints),
        .init("OS-SCH-HNT:scheduler_hints", hints),
    ])

    private static let createProperties: [BodySchema.Property] = [
        .init("name", .trimmedName, required: true), .init("flavorRef", .oneOf([.identifier, .integer]), required: true),
        .init("imageRef", .nullable(.text)), .init("adminPass", .nullable(.text)),
        .init("metadata", .nullable(metadata)), .init("key_name", .nullable(.identifier)),
        .init("user_data", .nullable(.string(min: 0, max: 65_535, format: .base64))),
        .init("config_drive", .nullable(.boolean)), .init("availability_zone", .nullable(.text)),
        .init("security_groups", .nullable(.array(.object([.init("name", .identifier, required: true)]), min: 0, max: 64))),
        .init("networks", .nullable(interfaces), versions: .through(36)),
        .init("networks", .oneOf([.enumeration(["auto", "none"]), interfaces]), required: true, versions: .from(37)),
        .init("block_device_mapping_v2", .nullable(.array(device, min: 0, max: 64))),
        .init("min_count", .nullable(.integer(min: 1, max: 1000))), .init("max_count", .nullable(.integer(min: 1, max: 1000))),
        .init("return_reservation_id", .boolean), .init("OS-DCF:diskConfig", .enumeration(["AUTO", "MANUAL"])),
        .init("accessIPv4", .nullable(.text(15))), .init("accessIPv6", .nullable(.text(45))),
        .init("personality", .array(file, min: 0, max: 1024), versions: .through(56)),
        .init("description", .nullable(.text), versions: .from(19)), .init("tags", .nullable(tags), versions: .from(52)),
        .init("trusted_image_certificates", .nullable(.array(.any, min: 0, max: 0)), versions: .from(63)),
        .init("host", .identifier, versions: .from(74)), .init("hypervisor_hostname", .identifier, versions: .from(74)),
        .init("hostname", .string(min: 1, max: 63, format: .hostLabel), versions: .between(90, 93)),
        .init("hostname", .string(min: 1, max: 255, format: .hostname), versions: .from(94)),
    ]

    private static let hints = BodySchema.object(
        [
            .init("group", .uuid), .init("same_host", .oneOf([.uuid, .array(.uuid, min: 0, max: 64)])),
            .init("different_host", .oneOf([.uuid, .array(.uuid, min: 0, max: 64)])),
        ], additional: .forbidden)

    static let update = BodySchema.wrapped(
        "server",
        .object([
            .init("pinned_availability_zone", .nullable(.identifier), versions: .from(104)),
            .init("name", .trimmedName), .init("OS-DCF:diskConfig", .enumeration(["AUTO", "MANUAL"])),
            .init("accessIPv4", .nullable(.text(15))), .init("accessIPv6", .nullable(.text(45))),
            .init("description", .nullable(.text), versions: .from(19)),
            .init("hostname", .string(min: 1, max: 63, format: .hostLabel), versions: .between(90, 93)),
            .init("hostname", .string(min: 1, max: 255, format: .hostname), versions: .from(94)),
        ]))
}
