import ArgumentParser
import JSON
import Kernel

extension Servers {
    struct CreateOptions: CreateArguments {
        @Argument(help: "The server's name.") var name: String
        @Option(help: ArgumentHelp("The flavor; see: osctl flavor list.", valueName: "flavor")) var flavor: String
        @Option(help: ArgumentHelp("The image to boot; see: osctl image list.", valueName: "image")) var image: String?
        @Option(help: ArgumentHelp("A volume to boot instead of an image.", valueName: "volume")) var volume: String?
        @Option(help: ArgumentHelp("Copy the image to a new volume of this size, in GB, and boot it.", valueName: "size"))
        var bootFromVolume: Int?
        @Option(
            help: ArgumentHelp(
                "A further disk (repeatable), such as source=blank,size=10,destination=volume. Sources: image, volume, snapshot, blank.",
                valueName: "key=value,…"))
        var blockDevice: [AssignmentList] = []
        @Option(help: ArgumentHelp("A swap disk of this size, in MiB.", valueName: "size")) var swap: Int?
        @Option(help: ArgumentHelp("An ephemeral disk of this size, in GB (repeatable).", valueName: "size")) var ephemeral: [Int] = []
        @Option(help: ArgumentHelp("A network (repeatable); by default the project's only one.", valueName: "network"))
        var network: [String] = []
        @Option(help: ArgumentHelp("A port (repeatable).", valueName: "port")) var port: [String] = []
        @Option(
            help: ArgumentHelp(
                "An interface (repeatable): network=NAME or port=NAME, and fixed-ip=ADDRESS, tag=TAG.", valueName: "key=value,…"))
        var nic: [AssignmentList] = []
        @Flag(help: "No network at all.") var noNetwork = false
        @Option(help: ArgumentHelp("A security group (repeatable).", valueName: "group")) var securityGroup: [String] = []
        @Option(
            name: [.customLong("key-name"), .customLong("keypair")], help: ArgumentHelp("The keypair to log in with.", valueName: "keypair")
        ) var keyName: String?
        @Option(help: ArgumentHelp("A file with user data for the guest.", valueName: "file"), completion: .file()) var userData: String?
        @Option(help: ArgumentHelp("A property (repeatable).", valueName: "key=value")) var property: [Assignment] = []
        @Option(help: ArgumentHelp("A tag (repeatable).", valueName: "tag")) var tag: [String] = []
        @Option(help: "A description.") var description: String?
        @Option(help: ArgumentHelp("The availability zone: `ZONE` or, for operators, `ZONE:HOST`.", valueName: "zone"))
        var availabilityZone: String?
        @Option(help: ArgumentHelp("The host on which it will run (operators).", valueName: "host")) var host: String?
        @Option(help: "The host name inside the guest, if it is not the server's name.") var hostname: String?
        @Option(help: ArgumentHelp("A hint for the scheduler, such as group=NAME (repeatable).", valueName: "key=value")) var hint:
            [Assignment] = []
        @Flag(help: "Also provide the metadata on a config drive.") var configDrive = false
        @Option(help: "How many.") var count = 1
        @Flag(help: "Only show where it would be placed, or why there is no host (exit code 1).") var dryRun = false

        func validate() throws {
            guard image != nil || volume != nil || !blockDevice.isEmpty else {
                throw ValidationError("A server needs --image (see: osctl image list), --volume or --block-device.")
            }
            guard image == nil || volume == nil else {
                throw ValidationError("--image and --volume exclude each other; with both, use --image with --boot-from-volume.")
            }
            guard bootFromVolume == nil || image != nil else { throw ValidationError("--boot-from-volume needs --image.") }
            guard !noNetwork || network.isEmpty && port.isEmpty && nic.isEmpty else {
                throw ValidationError("--no-network excludes --network, --port and --nic.")
            }
            guard count > 0 else { throw ValidationError("--count must be at least 1, not \(count).") }
        }

        /// The API requires ids of groups and servers; here names are accepted too.
        func hints(_ api: CloudAPI) async throws -> JSONValue {
            var object = JSONObject()
            for pair in hint {
                let value: String
                switch pair.name {
                case "group": value = try await api.id(ServerGroups.kind, pair.value)
                case "same_host", "different_host": value = try await api.id(Servers.kind, pair.value)
                default: value = pair.value
                }
                if let present = object[pair.name] {
                    object[pair.name] = .array((present.arrayValue ?? [present]) + [.string(value)])
                } else {
                    object[pair.name] = .string(value)
                }
            }
            return .object(object)
        }

        func members(_ api: CloudAPI) async throws -> JSONObject {
            var members: JSONObject = ["name": .string(name), "flavorRef": .string(try await api.id(Flavors.kind, flavor))]
            try await putDisks(&members, api)
            members["networks"] = try await networks(api)
            if !securityGroup.isEmpty {
                members["security_groups"] = .array(try await api.ids(SecurityGroups.kind, securityGroup).map { ["name": .string($0)] })
            }
            members.put("key_name", keyName)
            if let userData { members["user_data"] = .string(Base64.encode(try UserFile.read(userData))) }
            if !property.isEmpty { members["metadata"] = property.json }
            if !tag.isEmpty { members["tags"] = JSONValue(tag) }
            members.put("description", description)
            members.put("availability_zone", availabilityZone)
            members.put("host", host)
            members.put("hostname", hostname)
            if configDrive { members["config_drive"] = true }
            if count > 1 {
                members["min_count"] = JSONValue(count)
                members["max_count"] = JSONValue(count)
            }
            return members
        }

        private func putDisks(_ members: inout JSONObject, _ api: CloudAPI) async throws {
            var disks: [JSONValue] = []
            if let volume {
                let id = try await api.id(Volumes.kind, volume)
                disks.append([
                    "boot_index": 0, "uuid": .string(id), "source_type": "volume", "destination_type": "volume",
                    "delete_on_termination": false,
                ])
            } else if let image {
                let id = try await api.id(Images.kind, image)
                if let size = bootFromVolume {
                    disks.append([
                        "boot_index": 0, "uuid": .string(id), "source_type": "image", "destination_type": "volume",
                        "volume_size": JSONValue(size), "delete_on_termination": true,
                    ])
                } else {
                    members["imageRef"] = .string(id)
                    disks.append([
                        "boot_index": 0, "uuid": .string(id), "source_type": "image", "destination_type": "local",
                        "delete_on_termination": true,
                    ])
                }
            }
            if let swap {
                disks.append([
                    "boot_index": -1, "source_type": "blank", "destination_type": "local", "guest_format": "swap",
                    "volume_size": JSONValue(swap), "delete_on_termination": true,
                ])
            }
            for size in ephemeral {
                disks.append([
                    "boot_index": -1, "source_type": "blank", "destination_type": "local", "volume_size": JSONValue(size),
                    "delete_on_termination": true,
                ])
            }
            for option in blockDevice { disks.append(try await BlockDevice.member(option, api)) }
            // An image alone needs no mapping.
            if members["imageRef"] == nil || disks.count > 1 { members["block_device_mapping_v2"] = .array(disks) }
        }

        private func networks(_ api: CloudAPI) async throws -> JSONValue {
            if noNetwork { return "none" }
            var list = try await api.ids(Networks.kind, network).map { JSONValue.object(["uuid": .string($0)]) }
            list += try await api.ids(Ports.kind, port).map { .object(["port": .string($0)]) }
            for option in nic { list.append(try await CreateOptions.interface(option, api)) }
            return list.isEmpty ? "auto" : .array(list)
        }

        private static func interface(_ option: AssignmentList, _ api: CloudAPI) async throws -> JSONValue {
            try option.check("--nic", ["network", "net-id", "port", "port-id", "fixed-ip", "v4-fixed-ip", "v6-fixed-ip", "tag"])
            let network = option.values["network"] ?? option.values["net-id"]
            let port = option.values["port"] ?? option.values["port-id"]
            guard (network == nil) != (port == nil) else { throw CommandFailure("--nic needs either network=NAME or port=NAME.") }
            var interface = JSONObject()
            if let network { interface["uuid"] = .string(try await api.id(Networks.kind, network)) }
            if let port { interface["port"] = .string(try await api.id(Ports.kind, port)) }
            let addresses = ["fixed-ip", "v4-fixed-ip", "v6-fixed-ip"].compactMap { option.values[$0] }
            guard addresses.count <= 1 else { throw CommandFailure("--nic can have one address; a port can have more.") }
            interface.put("fixed_ip", addresses.first)
            interface.put("tag", option.values["tag"])
            return .object(interface)
        }
    }
}
