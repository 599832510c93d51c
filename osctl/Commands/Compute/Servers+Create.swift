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
        @Option(help: ArgumentHelp("A network (repeatable); by default the project's only one.", valueName: "network"))
        var network: [String] = []
        @Option(help: ArgumentHelp("A port (repeatable).", valueName: "port")) var port: [String] = []
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
        @Option(help: ArgumentHelp("A hint for the scheduler, such as group=NAME (repeatable).", valueName: "key=value")) var hint:
            [Assignment] = []
        @Flag(help: "Also provide the metadata on a config drive.") var configDrive = false
        @Option(help: "How many.") var count = 1
        @Flag(help: "Only show where it would be placed, or why there is no host (exit code 1).") var dryRun = false

        func validate() throws {
            guard image != nil || volume != nil else {
                throw ValidationError("A server needs --image (see: osctl image list) or --volume.")
            }
            guard image == nil || volume == nil else {
                throw ValidationError("--image and --volume exclude each other; with both, use --image with --boot-from-volume.")
            }
            guard bootFromVolume == nil || image != nil else { throw ValidationError("--boot-from-volume needs --image.") }
            guard !noNetwork || network.isEmpty && port.isEmpty else {
                throw ValidationError("--no-network excludes --network and --port.")
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
            if configDrive { members["config_drive"] = true }
            if count > 1 {
                members["min_count"] = JSONValue(count)
                members["max_count"] = JSONValue(count)
            }
            return members
        }

        private func putDisks(_ members: inout JSONObject, _ api: CloudAPI) async throws {
            if let volume {
                let id = try await api.id(Volumes.kind, volume)
                members["block_device_mapping_v2"] = [
                    [
                        "boot_index": 0, "uuid": .string(id), "source_type": "volume", "destination_type": "volume",
                        "delete_on_termination": false,
                    ]
                ]
            } else if let image {
                let id = try await api.id(Images.kind, image)
                guard let size = bootFromVolume else {
                    members["imageRef"] = .string(id)
                    return
                }
                members["block_device_mapping_v2"] = [
                    [
                        "boot_index": 0, "uuid": .string(id), "source_type": "image", "destination_type": "volume",
                        "volume_size": JSONValue(size), "delete_on_termination": true,
                    ]
                ]
            }
        }

        private func networks(_ api: CloudAPI) async throws -> JSONValue {
            if noNetwork { return "none" }
            var list = try await api.ids(Networks.kind, network).map { JSONValue.object(["uuid": .string($0)]) }
            list += try await api.ids(Ports.kind, port).map { .object(["port": .string($0)]) }
            return list.isEmpty ? "auto" : .array(list)
        }
    }
}
