/// Bounds-checked reads.
struct ByteView {
    private let bytes: [UInt8]
    init(_ bytes: [UInt8]) { self.bytes = bytes }

    var count: Int { bytes.count }

    func slice(_ offset: Int, _ count: Int) -> ArraySlice<UInt8>? {
        guard offset >= 0, count >= 0, offset <= bytes.count, count <= bytes.count - offset else { return nil }
        return bytes[offset..<offset + count]
    }

    /// Up to `count` bytes from `offset`, as far as they exist.
    func available(_ offset: Int, _ count: Int) -> ArraySlice<UInt8> {
        bytes.dropFirst(max(0, offset)).prefix(max(0, count))
    }

    func hasBytes(_ wanted: [UInt8], at offset: Int) -> Bool {
        slice(offset, wanted.count).map { $0.elementsEqual(wanted) } ?? false
    }
    func has(_ text: String, at offset: Int) -> Bool { hasBytes(Array(text.utf8), at: offset) }
    func isZero(_ offset: Int, _ count: Int) -> Bool {
        slice(offset, count).map { part in part.allSatisfy { $0 == 0 } } ?? false
    }

    /// Whether the bytes contain the text, ignoring case.
    ///
    /// - Parameter text: in lower case.
    static func contains(_ bytes: ArraySlice<UInt8>, _ text: String) -> Bool {
        let wanted = Array(text.utf8)
        guard bytes.count >= wanted.count else { return false }
        return bytes.withUnsafeBufferPointer { buffer in
            (0...(buffer.count - wanted.count)).contains { start in
                for index in 0..<wanted.count {
                    let byte = buffer[start + index]
                    let lower = (0x41...0x5a).contains(byte) ? byte | 0x20 : byte
                    if lower != wanted[index] { return false }
                }
                return true
            }
        }
    }

    func byte(_ offset: Int) -> UInt8? { slice(offset, 1)?.first }
    func big16(_ offset: Int) -> UInt16? { slice(offset, 2)?.reduce(UInt16(0)) { $0 << 8 | UInt16($1) } }
    func big32(_ offset: Int) -> UInt32? { slice(offset, 4)?.reduce(UInt32(0)) { $0 << 8 | UInt32($1) } }
    func big64(_ offset: Int) -> UInt64? { slice(offset, 8)?.reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
    func little16(_ offset: Int) -> UInt16? { slice(offset, 2)?.reversed().reduce(UInt16(0)) { $0 << 8 | UInt16($1) } }
    func little32(_ offset: Int) -> UInt32? { slice(offset, 4)?.reversed().reduce(UInt32(0)) { $0 << 8 | UInt32($1) } }
    func little64(_ offset: Int) -> UInt64? { slice(offset, 8)?.reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
}
