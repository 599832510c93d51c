import ArgumentParser
import BareMetalCore
import Client
import JSON
import ServiceCatalog

/// Verbs about how nodes start.
extension BareMetalNodes {
    struct BootModes: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "boot-mode", abstract: "How the firmware starts a system.", subcommands: [SetMode.self])

        struct SetMode: APICommand {
            static let configuration = CommandConfiguration(commandName: "set", abstract: "Set a node's boot mode.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @Argument(help: "bios or uefi.") var mode: String
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                try await BareMetalNodes.each([node], api, .put, "states/boot_mode", ["target": .string(mode)])
            }
        }
    }

    struct SecureBoot: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "secure-boot", abstract: "Whether only signed systems start.",
            subcommands: [SecureBootOn.self, SecureBootOff.self])

        struct SecureBootOn: APICommand {
            static let configuration = CommandConfiguration(commandName: "on", abstract: "Switch secure boot on.")
            @Argument(help: ArgumentHelp("Names or ids.", valueName: "node")) var nodes: [String]
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                try await BareMetalNodes.each(nodes, api, .put, "states/secure_boot", ["target": true])
            }
        }

        struct SecureBootOff: APICommand {
            static let configuration = CommandConfiguration(commandName: "off", abstract: "Switch secure boot off.")
            @Argument(help: ArgumentHelp("Names or ids.", valueName: "node")) var nodes: [String]
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                try await BareMetalNodes.each(nodes, api, .put, "states/secure_boot", ["target": false])
            }
        }
    }

    struct VirtualMedia: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "media", abstract: "Images that controllers present as drives.",
            subcommands: [ListMedia.self, InsertMedia.self, EjectMedia.self])

        struct ListMedia: APICommand {
            static let configuration = CommandConfiguration(commandName: "list", abstract: "List a node's drives for virtual media.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @OptionGroup(title: "Output") var output: OutputOptions
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                let drives = try await BareMetalNodes.look(api, node, "vmedia").arrayValue ?? []
                let columns = [
                    OutputColumn("Types", "media_types"), OutputColumn("Inserted", "inserted"), OutputColumn("Image", "image"),
                ]
                print(try output.list(drives, columns: columns), terminator: "")
            }
        }

        struct InsertMedia: APICommand {
            static let configuration = CommandConfiguration(commandName: "insert", abstract: "Insert an image into a node's drive.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @Argument(help: "The URL of the image, which the controller fetches.") var url: String
            @Option(help: "The kind of drive: cdrom, disk or floppy.") var device = MediaDevice.cdrom.rawValue
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                let body: JSONValue = ["device_type": .string(device), "image_url": .string(url)]
                try await BareMetalNodes.each([node], api, .post, "vmedia", body)
            }
        }

        struct EjectMedia: APICommand {
            static let configuration = CommandConfiguration(commandName: "eject", abstract: "Empty all of a node's drives, or some.")
            @Argument(help: ArgumentHelp("Name or id.", valueName: "node")) var node: String
            @Option(help: "Only drives of this kind: cdrom, disk or floppy.") var device: [String] = []
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                let query = device.isEmpty ? [] : [("device_types", device.joined(separator: ","))]
                _ = try await api.client.request(
                    service: .bareMetal, method: .delete, path: kind.path(id: node) + "/vmedia", query: query,
                    microversion: kind.microversion)
            }
        }
    }
}
