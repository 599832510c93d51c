import ArgumentParser
import Client
import JSON
import Kernel
import ServiceCatalog

/// Moves and resizes of servers.
extension Servers {
    struct Migrations: ParsableCommand {
        static let configuration = CommandConfiguration(
            commandName: "migration", abstract: "Moves and resizes of servers.", subcommands: [List.self])

        struct List: APICommand {
            static let configuration = CommandConfiguration(
                commandName: "list", abstract: "List moves and resizes, the newest first; live migrations with their progress.")

            @Argument(help: ArgumentHelp("Name or id; all servers if not given.", valueName: "server")) var server: String?
            @Option(help: ArgumentHelp("running, finished, completed, error, …", valueName: "status")) var status: String?
            @Option(help: ArgumentHelp("live-migration, migration, resize or evacuation.", valueName: "type")) var type: String?
            @Option(help: ArgumentHelp("The host that a server left or came to.", valueName: "host")) var host: String?
            @Option(help: "At most this many.") var limit = 100
            @OptionGroup(title: "Output") var output: OutputOptions
            @OptionGroup(title: "Cloud") var access: AccessOptions

            func execute(_ api: CloudAPI) async throws {
                var query: [(String, String)] = []
                if let server { query.append(("instance_uuid", try await api.id(Servers.kind, server))) }
                for (name, value) in [("status", status), ("migration_type", type), ("host", host)] {
                    if let value { query.append((name, value)) }
                }
                let records = try await api.client.list(
                    service: .compute, path: "/os-migrations", key: "migrations", query: query, microversion: Servers.microversion,
                    limit: limit)
                var rows: [JSONValue] = []
                for record in records { rows.append(try await List.withProgress(record, api)) }
                print(try output.list(rows, columns: List.columns), terminator: "")
            }

            private static let columns = [
                OutputColumn("ID", "id"), OutputColumn("Server", "instance_uuid"), OutputColumn("Type", "migration_type"),
                OutputColumn("Status", "status"),
                OutputColumn("From", "source_compute"), OutputColumn("To", "dest_compute"), OutputColumn("Started", "created_at"),
                OutputColumn("Progress", "progress"),
            ]

            /// Compute shows the progress in bytes only while a live migration runs, and only for single migrations.
            private static func withProgress(_ record: JSONValue, _ api: CloudAPI) async throws -> JSONValue {
                guard record["status"] == "running", record["migration_type"] == "live-migration", var row = record.objectValue,
                    let id = record["instance_uuid"]?.stringValue, let number = record["id"]?.intValue
                else { return record }
                let path: RESTPath = "/servers/\(id)/migrations/\(number)"
                do {
                    let live = try await api.client.get(.compute, path, microversion: Servers.microversion)["migration"]
                    row["progress"] = JSONValue(MoveProgress(live).percent.map { "\($0) %" })
                } catch let error as ResourceError where error.code == .notFound {
                    // It has ended in the meantime.
                }
                return .object(row)
            }
        }
    }
}

/// The progress of a guest's transfer to another host.
struct MoveProgress {
    /// Bytes.
    let total: Int
    let remaining: Int

    var sent: Int { total - remaining }
    /// Nil until the amount is known.
    var percent: Int? { total > 0 ? sent * 100 / total : nil }

    /// - Parameter migration: a live migration in progress, as Compute shows it.
    init(_ migration: JSONValue?) {
        func sum(_ what: String) -> Int {
            (migration?["memory_\(what)_bytes"]?.intValue ?? 0) + (migration?["disk_\(what)_bytes"]?.intValue ?? 0)
        }
        total = sum("total")
        remaining = min(total, sum("remaining"))
    }
}
