package import ComputeAgentCore
import Cryptography
import JSON
package import Kernel
import Libvirt

/// The servers' records on disk: one checksummed file each, replaced atomically.
package struct StateStore: Sendable {
    private let directory: String
    private let threads: WorkerThreads

    /// - Throws: `FileError`.
    package init(directory: String, threads: WorkerThreads) throws {
        self.directory = directory
        self.threads = threads
        try Files.makeDirectory(directory)
    }

    private func path(_ serverID: String) -> String { "\(directory)/\(serverID).json" }

    /// - Throws: `FileError`.
    package func save(_ record: LocalServerRecord) async throws {
        let path = path(record.serverID)
        let content = StateStore.seal(record.document.encoded)
        try await threads.run { try Files.replace(path, with: content) }
    }

    /// Forgets a server's record.
    package func remove(_ serverID: String) async throws {
        let path = path(serverID)
        try await threads.run { try Files.remove(path) }
    }

    /// Every record that can be read, and why the others cannot: a damaged file is kept aside, never guessed at.
    package func load() async throws -> (records: [LocalServerRecord], problems: [String]) {
        try await threads.run { [self] in
            var records: [LocalServerRecord] = []
            var problems: [String] = []
            for name in try Files.list(directory) where name.hasSuffix(".json") {
                let file = "\(directory)/\(name)"
                do {
                    if let record = try StateStore.record(file) { records.append(record) }
                } catch {
                    problems.append("\(file): \(error)")
                    try Files.publish(file, as: file + ".damaged")
                }
            }
            return (records, problems)
        }
    }

    /// The records in a directory, read on the caller's thread.
    ///
    /// - Throws: `FileError`, `FormError`, `JSONError` for one that cannot be read.
    package static func records(in directory: String) throws -> [LocalServerRecord] {
        try Files.list(directory).filter { $0.hasSuffix(".json") }.compactMap { try record("\(directory)/\($0)") }
    }

    private static func record(_ file: String) throws -> LocalServerRecord? {
        try Files.read(file).map { try LocalServerRecord(document: try unseal($0)) }
    }

    // MARK: form

    private static let mark = Array("sha256:".utf8)

    /// A line with the checksum, then the document.
    static func seal(_ document: [UInt8]) -> [UInt8] {
        mark + Array(Hexadecimal.encode(HashAlgorithm.sha256.hash(document)).utf8) + [0x0a] + document
    }

    static func unseal(_ content: [UInt8]) throws -> JSONValue {
        guard let end = content.firstIndex(of: 0x0a), content.starts(with: mark) else {
            throw FormError(path: "file", problem: "has no checksum")
        }
        let document = Array(content[(end + 1)...])
        let stated = content[mark.count..<end]
        guard stated.elementsEqual(Hexadecimal.encode(HashAlgorithm.sha256.hash(document)).utf8) else {
            throw FormError(path: "file", problem: "does not match its checksum")
        }
        return try JSONValue.parse(document, depthMax: Limits.jsonDepthMax)
    }
}
