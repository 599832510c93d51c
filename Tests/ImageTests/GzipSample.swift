/// Gzip streams for tests, written bit by bit.
enum GzipSample {
    /// These bytes, stored without compression.
    static func stored(_ bytes: [UInt8]) -> [UInt8] {
        var result: [UInt8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]
        for start in stride(from: 0, to: bytes.count, by: 65_535) {
            let part = bytes[start..<min(bytes.count, start + 65_535)]
            result.append(start + part.count == bytes.count ? 1 : 0)
            result += [UInt8(part.count & 255), UInt8(part.count >> 8), ~UInt8(part.count & 255), ~UInt8(part.count >> 8)]
            result += part
        }
        return result + trailer(bytes)
    }

    /// A bomb: `258 * count + 1` zero bytes, 159 times as many as the result has. Its check sum is wrong.
    static func zeros(_ count: Int) -> [UInt8] {
        var result: [UInt8] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]
        var accumulator: UInt32 = 0
        var bits: UInt32 = 0
        func put(_ value: UInt32, _ width: UInt32) {
            accumulator |= value << bits
            bits += width
            while bits >= 8 {
                result.append(UInt8(accumulator & 255))
                accumulator >>= 8
                bits -= 8
            }
        }
        // Huffman codes are written from their highest bit.
        func code(_ value: UInt32, _ width: UInt32) { for bit in (0..<width).reversed() { put(value >> bit & 1, 1) } }
        put(0b011, 3)
        code(0b0011_0000, 8)
        for _ in 0..<count {
            code(0b1100_0101, 8)
            code(0, 5)
        }
        code(0, 7)
        put(0, 7)
        return result + [0, 0, 0, 0, 0, 0, 0, 0]
    }

    private static func trailer(_ bytes: [UInt8]) -> [UInt8] {
        var sum: UInt32 = 0xffff_ffff
        for byte in bytes {
            sum ^= UInt32(byte)
            for _ in 0..<8 { sum = sum & 1 == 1 ? (sum >> 1) ^ 0xedb8_8320 : sum >> 1 }
        }
        return [~sum, UInt32(bytes.count)].flatMap { value in (0..<4).map { UInt8(value >> ($0 * 8) & 255) } }
    }
}
