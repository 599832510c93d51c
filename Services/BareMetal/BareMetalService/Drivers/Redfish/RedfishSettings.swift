import BareMetalCore
import JSON
import Kernel

/// The address of a node's controller and how to authenticate: the members `redfish_…` of `driver_info`.
struct RedfishSettings: Sendable {
    enum SignOn: String, Sendable, CaseIterable { case session, basic, auto }

    /// The certificate authorities that verify the controller's certificate.
    enum Authority: Sendable, Hashable {
        case system, none
        case file(String)
    }

    /// `https://bmc.example:8443`
    let address: String
    /// The path of the machine; nil if the controller has only one.
    let system: String?
    let user: String?
    let password: Secret<String>?
    let authority: Authority
    let signOn: SignOn

    /// - Parameter certificates: the directory with the operator's certificate authorities; nil if there is none.
    /// - Throws: `HardwareFailure` naming the member.
    init(_ info: JSONObject, secrets: [String: Secret<String>], certificates: String?) throws(HardwareFailure) {
        func text(_ name: String) throws(HardwareFailure) -> String? {
            guard let value = info[name], value != .null else { return nil }
            guard let text = value.stringValue, !text.isEmpty, text.utf8.count <= 255, text.utf8.allSatisfy({ (0x21...0x7e).contains($0) })
            else {
                throw HardwareFailure(
                    description: "\(name) must be a text of 1 to 255 printable ASCII characters, not \(value.description.prefix(64)).")
            }
            return text
        }
        guard let address = try text("redfish_address") else { throw HardwareFailure(description: "redfish_address is required.") }
        self.address = try RedfishSettings.address(address)
        system = try text("redfish_system_id")
        if let system, !RedfishSettings.isPath(system) {
            throw HardwareFailure(description: "redfish_system_id must be a path like /redfish/v1/Systems/1, not \(system.prefix(64)).")
        }
        user = try text("redfish_username")
        password = secrets["redfish_password"]
        // A colon ends the user in the header of Basic authentication (RFC 7617).
        guard user?.contains(":") != true else { throw HardwareFailure(description: "redfish_username must not contain a colon.") }
        guard (user == nil) == (password == nil) else {
            throw HardwareFailure(description: "redfish_username and redfish_password must be set together.")
        }
        let word = try text("redfish_auth_type") ?? SignOn.auto.rawValue
        guard let signOn = SignOn(rawValue: word) else {
            throw HardwareFailure(description: "redfish_auth_type must be session, basic or auto, not \(word.prefix(64)).")
        }
        self.signOn = signOn
        authority = try RedfishSettings.authority(info["redfish_verify_ca"], certificates)
    }

    private static func address(_ text: String) throws(HardwareFailure) -> String {
        let full = text.contains("://") ? text : "https://" + text
        let url = full.hasSuffix("/") ? String(full.dropLast()) : full
        let host = url.hasPrefix("https://") ? url.dropFirst(8) : url.hasPrefix("http://") ? url.dropFirst(7) : ""
        let isHost =
            !host.isEmpty
            && host.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"),
                    UInt8(ascii: "."), UInt8(ascii: "-"), UInt8(ascii: ":"), UInt8(ascii: "["), UInt8(ascii: "]"):
                    true
                default: false
                }
            }
        guard isHost else {
            throw HardwareFailure(
                description: "redfish_address must be a URL with a host and optionally a port, https://HOST:PORT, not \(text.prefix(64)).")
        }
        return url
    }

    /// Whether the text is a path on this controller; rejects other hosts and paths outside the service. Paths in the controller's
    /// responses are checked too.
    static func isPath(_ text: String) -> Bool {
        text.hasPrefix("/") && !text.hasPrefix("//") && text.utf8.count <= 512 && !text.split(separator: "/").contains("..")
            && text.utf8.allSatisfy { byte in
                switch byte {
                case UInt8(ascii: "a")...UInt8(ascii: "z"), UInt8(ascii: "A")...UInt8(ascii: "Z"), UInt8(ascii: "0")...UInt8(ascii: "9"):
                    true
                default: "/-._~:@!$&'()*+,;=%".utf8.contains(byte)
                }
            }
    }

    private static func authority(_ value: JSONValue?, _ directory: String?) throws(HardwareFailure) -> Authority {
        switch value {
        case nil, .null?, .bool(true)?: return .system
        case .bool(false)?: return .none
        case .string(let name)?:
            switch name.lowercased() {
            case "true": return .system
            case "false": return .none
            default: break
            }
            // Only a file name is allowed: with a path, a client could make the service read any file.
            guard let directory, NodeRules.isName(name), name != ".", name != ".." else {
                throw HardwareFailure(
                    description: """
                        redfish_verify_ca must be true, false\(directory == nil ? "" : " or the name of a file of certificates"), not \
                        \(name.prefix(64)).
                        """)
            }
            return .file(directory + "/" + name)
        case let value?: throw HardwareFailure(description: "redfish_verify_ca must be true or false, not \(value.description.prefix(64)).")
        }
    }
}
