/// A store of the setting `image.stores`: `NAME=file:DIRECTORY`.
package struct StoreDeclaration: Sendable, Hashable {
    /// The driver of a store.
    package enum Driver: String, Sendable, CaseIterable {
        /// Files in a directory.
        case file
    }

    /// The store of `image.directory`, which every cloud has. It also has the staged data.
    package static let base = "file"
    private static let nameLengthMax = 64

    package let name: String
    package let driver: Driver
    /// The driver's argument: for `file`, the directory.
    package let place: String

    /// - Returns: nil for text that does not declare a store.
    package init?(_ text: String) {
        let parts = text.split(separator: "=", maxSplits: 1).map(String.init)
        guard parts.count == 2, StoreDeclaration.isName(parts[0]), parts[0] != StoreDeclaration.base else { return nil }
        let rest = parts[1].split(separator: ":", maxSplits: 1).map(String.init)
        guard rest.count == 2, let driver = Driver(rawValue: rest[0]), rest[1].hasPrefix("/") else { return nil }
        (name, self.driver, place) = (parts[0], driver, rest[1])
    }

    /// Names are used in headers and lists, which separate them with commas.
    package static func isName(_ text: String) -> Bool {
        (1...nameLengthMax).contains(text.utf8.count) && !text.hasPrefix(ImageAttribute.reservedPrefix)
            && text.utf8.allSatisfy { byte in
                (0x61...0x7a).contains(byte) || (0x41...0x5a).contains(byte) || (0x30...0x39).contains(byte) || byte == 0x2d || byte == 0x5f
            }
    }
}
