import ArgumentParser
import Client
import JSON
import ServiceCatalog

extension Servers {
    struct Topology: APICommand {
        static let configuration = CommandConfiguration(
            abstract: "Show the NUMA nodes of a server: processors, memory, and for operators the processors of the host.")
        @Argument(help: "The server.") var server: String
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        private static let columns = [
            OutputColumn("vCPUs", "vcpu_set"), OutputColumn("Memory", "memory_mb") { "\($0["memory_mb"]?.intValue ?? 0) MiB" },
            OutputColumn("Threads", "siblings") { node in
                (node["siblings"]?.arrayValue ?? []).map { "(\(CellText.text($0)))" }.joined(separator: " ")
            },
            OutputColumn("Host node", "host_node"), OutputColumn("Pinned to", "cpu_pinning"),
        ]

        func execute(_ api: CloudAPI) async throws {
            let path = kind.path(id: try await api.id(kind, server)) + "/topology"
            let topology = try await api.client.get(.compute, path, microversion: kind.microversion)
            print(try output.list(topology["nodes"]?.arrayValue ?? [], columns: Topology.columns), terminator: "")
        }
    }

    struct Diagnostics: APICommand {
        static let configuration = CommandConfiguration(
            abstract: "Show what a running server uses, as its host measures it (operators).")
        @Argument(help: "The server.") var server: String
        @OptionGroup(title: "Output") var output: OutputOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let path = kind.path(id: try await api.id(kind, server)) + "/diagnostics"
            print(try output.object(try await api.client.get(.compute, path, microversion: kind.microversion), fields: nil), terminator: "")
        }
    }
}
