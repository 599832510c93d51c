import Glibc

/// Reads small files as a whole.
enum TextFile {
    /// Largest configuration or secret file, in bytes.
    private static let bytesMax = 1 << 20

    /// - Throws: `SettingsError` with the reason if the file cannot be read.
    static func read(_ path: String) throws(SettingsError) -> String {
        let descriptor = open(path, O_RDONLY | O_CLOEXEC)
        guard descriptor >= 0 else {
            throw SettingsError(["cannot read \(path): \(String(cString: strerror(errno)))"])
        }
        defer { close(descriptor) }
        var bytes: [UInt8] = []
        var buffer = [UInt8](repeating: 0, count: 16_384)
        while true {
            let count = Glibc.read(descriptor, &buffer, buffer.count)
            if count == 0 { break }
            guard count > 0 else {
                if errno == EINTR { continue }
                throw SettingsError(["cannot read \(path): \(String(cString: strerror(errno)))"])
            }
            bytes += buffer[..<count]
            guard bytes.count <= bytesMax else { throw SettingsError(["\(path) is larger than \(bytesMax) bytes"]) }
        }
        guard let text = String(validating: bytes, as: UTF8.self) else {
            throw SettingsError(["\(path) is not UTF-8 text"])
        }
        return text
    }
}
