import Cryptography
import Foundation
import Kernel

/// Time-based one-time passwords (RFC 6238): HMAC-SHA-1, six digits, steps of 30 seconds, as authenticator apps generate and Keystone
/// accepts them.
enum OneTimeCode {
    static let digits = 6
    static let stepSeconds: Int64 = 30
    /// The minimum length of a secret in bytes: 80 bits, which authenticator apps show as 16 characters.
    static let secretBytesMin = 10

    /// The number of the step that contains a time.
    static func step(at time: Timestamp) -> Int64 { time.microseconds / (stepSeconds * 1_000_000) }

    /// The code of one step.
    static func code(secret: [UInt8], step: Int64) -> String {
        let counter = (0..<8).reversed().map { UInt8(truncatingIfNeeded: step >> (Int64($0) * 8)) }
        let mac = HashAlgorithm.sha1.authenticationCode(for: counter, key: secret)
        let offset = Int(mac[mac.count - 1] & 15)
        let number = mac[offset..<(offset + 4)].reduce(UInt32(0)) { $0 << 8 | UInt32($1) } & 0x7fff_ffff
        let text = String(number % 1_000_000)
        return String(repeating: "0", count: digits - text.count) + text
    }

    /// The bytes of a base 32 text (RFC 4648 §6), with or without padding, in either case; nil for invalid text.
    static func secret(base32 text: String) -> [UInt8]? {
        let characters = text.uppercased().utf8
        let body = characters.prefix { $0 != UInt8(ascii: "=") }
        guard characters.dropFirst(body.count).allSatisfy({ $0 == UInt8(ascii: "=") }) else { return nil }
        var bytes: [UInt8] = []
        var value = 0
        var bits = 0
        for character in body {
            switch character {
            case UInt8(ascii: "A")...UInt8(ascii: "Z"): value = value << 5 | Int(character - UInt8(ascii: "A"))
            case UInt8(ascii: "2")...UInt8(ascii: "7"): value = value << 5 | Int(character - UInt8(ascii: "2") + 26)
            default: return nil
            }
            bits += 5
            if bits >= 8 {
                bits -= 8
                bytes.append(UInt8(truncatingIfNeeded: value >> bits))
                value &= (1 << bits) - 1
            }
        }
        return bytes
    }
}
