import ComputeAgentService
import Glibc
import Kernel

/// The directory of this process's simulated machines. It becomes the working directory, so that files have the same names in
/// every run.
struct Scratch {
    private let path: String

    /// - Throws: `FileError`.
    init() throws {
        // Agents sync each file to disk.
        let place = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp"
        var template = Array("\(place)/wolke-simulate.XXXXXX".utf8CString)
        guard mkdtemp(&template) != nil else { throw FileError.last("create a directory in", place) }
        path = String(decoding: template.dropLast().map { UInt8(bitPattern: $0) }, as: UTF8.self)
        guard chdir(path) == 0 else { throw FileError.last("change to", path) }
    }

    /// Removes the files of an earlier run.
    static func clear() throws {
        for host in Plane.hosts + ["volumes"] { try Files.removeTree(host) }
    }

    func remove() {
        do {
            guard chdir("/") == 0 else { throw FileError.last("change to", "/") }
            try Files.removeTree(path)
        } catch { print("could not remove \(path): \(error)") }
    }
}
