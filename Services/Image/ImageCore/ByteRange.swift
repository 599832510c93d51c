/// A part of an image's data that a client asks for.
package struct ByteRange: Sendable, Hashable {
    package let range: Range<Int>

    /// Reads `Range: bytes=a-b`, `bytes=a-`, `bytes=-n` (RFC 9110 §14) against data of `size` bytes.
    ///
    /// - Returns: nil where the header asks for nothing that must be honoured (another unit, several ranges, no sense).
    /// - Throws: `Unsatisfiable` for a range that lies outside the data.
    package static func parse(_ header: String, size: Int) throws(Unsatisfiable) -> ByteRange? {
        let text = header.filter { $0 != " " }
        guard text.lowercased().hasPrefix("bytes="), !text.contains(",") else { return nil }
        let parts = text.dropFirst(6).split(separator: "-", omittingEmptySubsequences: false)
        guard parts.count == 2 else { return nil }
        if parts[0].isEmpty {
            guard let count = Int(parts[1]), count >= 0 else { return nil }
            guard count > 0, size > 0 else { throw Unsatisfiable() }
            return ByteRange(range: max(0, size - count)..<size)
        }
        guard let first = Int(parts[0]), first >= 0 else { return nil }
        guard first < size else { throw Unsatisfiable() }
        if parts[1].isEmpty { return ByteRange(range: first..<size) }
        guard let last = Int(parts[1]) else { return nil }
        guard last >= first else { return nil }
        return ByteRange(range: first..<min(size, last == Int.max ? last : last + 1))
    }

    /// The range lies outside the data: 416.
    package struct Unsatisfiable: Error {}
}
