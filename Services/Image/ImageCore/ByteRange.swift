/// The part of an image's data that a client requests.
package struct ByteRange: Sendable, Hashable {
    package let range: Range<Int>

    /// Parses `Range: bytes=a-b`, `bytes=a-`, `bytes=-n` (RFC 9110 §14) for data of `size` bytes.
    ///
    /// - Returns: nil for a header that must be ignored (another unit, several ranges, malformed).
    /// - Throws: `Unsatisfiable` for a range outside of the data.
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

    /// The range is outside of the data: 416.
    package struct Unsatisfiable: Error {}
}
