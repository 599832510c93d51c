import ArgumentParser
import Client
import JSON
import ServiceCatalog

/// `osctl image cache …`: the images that the machine of the Image service keeps beside a remote store.
struct ImageCacheCommand: ParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "cache", abstract: "The cache of the Image service (operators).",
        subcommands: [List.self, Add.self, Remove.self, Clear.self, Prune.self, Clean.self])

    struct List: APICommand {
        static let configuration = CommandConfiguration(abstract: "List cached images, and those that wait to be cached.")
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        private static let columns = [
            OutputColumn("Image", "image_id"), OutputColumn("State", "state"),
            OutputColumn("Size", "size") { $0["size"]?.intValue.map(CellText.bytes) ?? "" }, OutputColumn("Hits", "hits"),
        ]

        func execute(_ api: CloudAPI) async throws {
            let answer = try await api.client.get(.image, "/cache")
            let cached = (answer["cached_images"]?.arrayValue ?? []).map { image -> JSONValue in
                var row = image.objectValue ?? [:]
                row["state"] = "cached"
                return .object(row)
            }
            let queued = (answer["queued_images"]?.arrayValue ?? []).map { id -> JSONValue in ["image_id": id, "state": "queued"] }
            print(try output.list(cached + queued, columns: List.columns), terminator: "")
        }
    }

    struct Add: APICommand {
        static let configuration = CommandConfiguration(abstract: "Let images be cached.")
        @Argument(help: ArgumentHelp("Names or ids.", valueName: "image")) var images: [String]
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let failures = await Several.run(images, api) { name in
                _ = try await api.client.put(.image, "/cache/\(try await api.id(Images.kind, name))")
            }
            if failures > 0 { throw ExitCode(1) }
        }
    }

    struct Remove: APICommand {
        static let configuration = CommandConfiguration(abstract: "Remove images from the cache or its queue; the images remain.")
        @Argument(help: ArgumentHelp("Names or ids.", valueName: "image")) var images: [String]
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let failures = await Several.run(images, api) { name in
                try await api.client.delete(.image, "/cache/\(try await api.id(Images.kind, name))")
            }
            if failures > 0 { throw ExitCode(1) }
        }
    }

    struct Clear: APICommand {
        static let configuration = CommandConfiguration(abstract: "Empty the cache and its queue, or one of them.")
        @Option(help: "cache or queue; both if not given.") var only: Part?
        @OptionGroup(title: "Cloud") var access: AccessOptions

        enum Part: String, ExpressibleByArgument, CaseIterable { case cache, queue }

        func execute(_ api: CloudAPI) async throws {
            _ = try await api.client.request(
                service: .image, method: .delete, path: "/cache",
                headers: only.map { [("x-image-cache-clear-target", $0.rawValue)] } ?? [])
        }
    }

    struct Prune: APICommand {
        static let configuration = CommandConfiguration(
            abstract: "Remove the images that were used least recently, until the cache has its permitted size.")
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let pruned = try await api.client.request(service: .image, method: .post, path: "/cache/prune").json
            let files = pruned["total_files_pruned"]?.intValue ?? 0
            print("Removed \(files) image\(files == 1 ? "" : "s"), \(CellText.bytes(pruned["total_bytes_pruned"]?.intValue ?? 0)).")
        }
    }

    struct Clean: APICommand {
        static let configuration = CommandConfiguration(abstract: "Remove files that do not belong in the cache.")
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            _ = try await api.client.request(service: .image, method: .post, path: "/cache/clean")
        }
    }
}
