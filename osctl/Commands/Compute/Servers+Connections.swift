import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

extension Servers {
    /// `osctl server add …`
    struct Add: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Add something to a server.",
            subcommands: [AddFloatingIP.self, AddVolume.self, AddNetwork.self, AddPort.self, SecurityGroup<AddGroup>.self])
    }

    /// `osctl server remove …`
    struct Remove: ParsableCommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove something from a server.",
            subcommands: [RemoveFloatingIP.self, RemoveVolume.self, RemoveNetwork.self, RemovePort.self, SecurityGroup<RemoveGroup>.self])
    }

    struct AddFloatingIP: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "floating-ip", abstract: "Associate a floating IP with a server; without an address, a new one is allocated.")
        @Argument(help: "The server.") var server: String
        @Argument(help: "The floating IP, by address or id.") var floatingIp: String?
        @Option(help: ArgumentHelp("The external network for a new one.", valueName: "network")) var network: String?
        @Option(help: "The server's fixed IP to associate.") var fixedIpAddress: String?
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func validate() throws {
            guard (floatingIp == nil) != (network == nil) else {
                throw ValidationError("Specify a floating IP (see: osctl floating-ip list), or --network for a new one.")
            }
        }

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, server)
            let ports = try await api.list(Ports.kind, query: [("device_id", id)])
            let port = ports.first { port in
                let addresses = (port["fixed_ips"]?.arrayValue ?? []).compactMap { $0["ip_address"]?.stringValue }
                return fixedIpAddress.map { addresses.contains($0) } ?? addresses.contains { $0.contains(".") }
            }
            guard let port else {
                let which = fixedIpAddress.map { "the address \($0)" } ?? "a port with an IPv4 address"
                throw CommandFailure(
                    "The server \(server) has no port with \(which).".replacing("no port with a port", with: "no port"),
                    hint: "See: osctl port list --server \(server)")
            }
            var members: JSONObject = ["port_id": .string(try Ports.kind.id(port))]
            members.put("fixed_ip_address", fixedIpAddress)
            let result: JSONValue
            if let floatingIp {
                let floating = try await api.id(FloatingIPs.kind, floatingIp)
                result = try await api.update(FloatingIPs.kind, id: floating, method: .put, members)
            } else {
                members["floating_network_id"] = .string(try await api.id(Networks.kind, network ?? ""))
                result = try await api.create(FloatingIPs.kind, FloatingIPs.kind.body(members))
            }
            print(try output.object(result, fields: nil), terminator: "")
        }
    }

    struct RemoveFloatingIP: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "floating-ip", abstract: "Disassociate a floating IP from a server; the project keeps it.")
        @Argument(help: "The server.") var server: String
        @Argument(help: "The floating IP, by address or id.") var floatingIp: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, server)
            let floating = try await api.find(FloatingIPs.kind, floatingIp)
            guard let port = floating["port_id"]?.stringValue, try await api.get(Ports.kind, id: port)["device_id"]?.stringValue == id
            else {
                throw CommandFailure(
                    "The floating IP \(floatingIp) is not associated with the server \(server).",
                    hint: "See: osctl floating-ip show \(floatingIp)")
            }
            _ = try await api.update(FloatingIPs.kind, id: try FloatingIPs.kind.id(floating), method: .put, ["port_id": nil])
        }
    }

    struct AddVolume: APICommand {
        static let configuration = CommandConfiguration(commandName: "volume", abstract: "Attach a volume to a server.")
        @Argument(help: "The server.") var server: String
        @Argument(help: "The volume.") var volume: String
        @Option(help: ArgumentHelp("The device name; the next free one by default.", valueName: "device")) var device: String?
        @Option(help: "A tag by which the guest finds the device in its metadata.") var tag: String?
        @Flag(help: "Delete the volume with the server.") var deleteOnTermination = false
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, server)
            let volumeID = try await api.id(Volumes.kind, volume)
            var attachment: JSONObject = ["volumeId": .string(volumeID)]
            attachment.put("device", device)
            attachment.put("tag", tag)
            if deleteOnTermination { attachment["delete_on_termination"] = true }
            let answer = try await api.client.post(
                .compute, kind.path(id: id) + "/os-volume_attachments", ["volumeAttachment": .object(attachment)],
                microversion: kind.microversion)
            if waiting.wait, let rule = Volumes.kind.progress {
                _ = try await Waiter(api, limit: waiting.timeout).reach(["in-use"], Volumes.kind, id: volumeID, rule: rule)
            }
            print(try output.object(answer["volumeAttachment"] ?? answer, fields: nil), terminator: "")
        }
    }

    struct RemoveVolume: APICommand {
        static let configuration = CommandConfiguration(commandName: "volume", abstract: "Detach a volume from a server.")
        @Argument(help: "The server.") var server: String
        @Argument(help: "The volume.") var volume: String
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let id = try await api.id(kind, server)
            let volumeID = try await api.id(Volumes.kind, volume)
            try await api.client.delete(.compute, kind.path(id: id) + "/os-volume_attachments/\(volumeID)", microversion: kind.microversion)
            if waiting.wait, let rule = Volumes.kind.progress {
                _ = try await Waiter(api, limit: waiting.timeout).reach(["available"], Volumes.kind, id: volumeID, rule: rule)
            }
        }
    }

    struct AddNetwork: APICommand {
        static let configuration = CommandConfiguration(commandName: "network", abstract: "Add a port in another network to a server.")
        @Argument(help: "The server.") var server: String
        @Argument(help: "The network.") var network: String
        @Option(help: ArgumentHelp("The address; any free one by default.", valueName: "address")) var fixedIpAddress: String?
        @Option(help: "A tag by which the guest finds the interface in its metadata.") var tag: String?
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            var members: JSONObject = ["net_id": .string(try await api.id(Networks.kind, network))]
            if let fixedIpAddress { members["fixed_ips"] = [["ip_address": .string(fixedIpAddress)]] }
            try await Servers.attach(members, tag: tag, to: server, api)
        }
    }

    struct AddPort: APICommand {
        static let configuration = CommandConfiguration(commandName: "port", abstract: "Add a port to a server.")
        @Argument(help: "The server.") var server: String
        @Argument(help: "The port.") var port: String
        @Option(help: "A tag by which the guest finds the interface in its metadata.") var tag: String?
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            try await Servers.attach(["port_id": .string(try await api.id(Ports.kind, port))], tag: tag, to: server, api)
        }
    }

    private static func attach(_ members: JSONObject, tag: String?, to server: String, _ api: CloudAPI) async throws {
        var members = members
        members.put("tag", tag)
        try await api.client.post(
            .compute, kind.path(id: try await api.id(kind, server)) + "/os-interface", ["interfaceAttachment": .object(members)],
            microversion: kind.microversion)
    }

    struct RemoveNetwork: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "network", abstract: "Remove all ports in a network from a server.")
        @Argument(help: "The server.") var server: String
        @Argument(help: "The network.") var network: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let path = kind.path(id: try await api.id(kind, server)) + "/os-interface"
            let networkID = try await api.id(Networks.kind, network)
            let interfaces = try await api.client.get(.compute, path, microversion: kind.microversion)["interfaceAttachments"]
            let ports = (interfaces?.arrayValue ?? []).filter { $0["net_id"]?.stringValue == networkID }
                .compactMap { $0["port_id"]?.stringValue }
            guard !ports.isEmpty else {
                throw CommandFailure("The server \(server) has no port in \(network).", hint: "See: osctl port list --server \(server)")
            }
            for port in ports { try await api.client.delete(.compute, path + "/\(port)", microversion: kind.microversion) }
        }
    }

    struct RemovePort: APICommand {
        static let configuration = CommandConfiguration(commandName: "port", abstract: "Remove a port from a server.")
        @Argument(help: "The server.") var server: String
        @Argument(help: "The port.") var port: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let portID = try await api.id(Ports.kind, port)
            try await api.client.delete(
                .compute, kind.path(id: try await api.id(kind, server)) + "/os-interface/\(portID)", microversion: kind.microversion)
        }
    }

    struct SecurityGroup<Way: SecurityGroupWay>: APICommand {
        static var configuration: CommandConfiguration { CommandConfiguration(commandName: "security-group", abstract: Way.abstract) }
        @Argument(help: "The server.") var server: String
        @Argument(help: "The security group.") var group: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let groupID = try await api.id(SecurityGroups.kind, group)
            try await api.act(kind, id: try await api.id(kind, server), [Way.action: ["name": .string(groupID)]])
        }
    }

    enum AddGroup: SecurityGroupWay {
        static let action = "addSecurityGroup"
        static let abstract = "Apply a security group to all ports of a server."
    }

    enum RemoveGroup: SecurityGroupWay {
        static let action = "removeSecurityGroup"
        static let abstract = "Remove a security group from all ports of a server."
    }
}

/// Adds or removes a security group.
protocol SecurityGroupWay {
    static var action: String { get }
    static var abstract: String { get }
}
