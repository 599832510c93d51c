import ComputeAgentCore
import Glibc
import GuestKeys
import Kernel
import Libvirt

/// The state of trusted platform modules. libvirt has a fixed directory for it. A symbolic link there points to the server's own directory,
/// so that the state is stored with the disks.
extension ServerDisks {
    /// - Throws: `FileError`.
    func prepareTPM(_ server: DesiredServer) async throws {
        let (state, link) = (files(server.id).tpm, "\(tpmDirectory)/\(server.id)")
        guard server.hardware.tpm != nil else { return }
        let directory = tpmDirectory
        try await threads.run {
            try Files.makePassableDirectory(directory)
            try Files.makePassableDirectory(state)
            var target = [CChar](repeating: 0, count: Int(PATH_MAX))
            let length = readlink(link, &target, target.count - 1)
            if length > 0, String(decoding: target.prefix(length).map { UInt8(bitPattern: $0) }, as: UTF8.self) == state { return }
            try Files.remove(link)
            guard symlink(state, link) == 0 else { throw FileError.last("link", link) }
        }
    }

    /// Removes the link; the state is removed with the server's files.
    func removeTPM(_ serverID: String) async throws {
        let link = "\(tpmDirectory)/\(serverID)"
        try await threads.run { try Files.remove(link) }
    }
}
