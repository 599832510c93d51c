import JSON
import Kernel
import NetworkCore
import WebAPI

/// `extra_dhcp_opts` of a port.
enum DHCPOptions {
    static let countMax = 32
    static let schema = BodySchema.object([
        .init("opt_name", .string(min: 1, max: 64, format: nil), required: true),
        .init("opt_value", .nullable(.string(min: 0, max: 255, format: nil)), required: true),
        .init("ip_version", .integer(min: 4, max: 6)),
    ])

    /// The options in the stored form.
    ///
    /// - Throws: 400 for an option that OVN does not support.
    static func checked(_ values: [JSONValue]) throws -> JSONValue {
        var seen: Set<String> = []
        var result: [JSONValue] = []
        for value in values {
            let name = value["opt_name"]?.stringValue ?? ""
            let version = value["ip_version"]?.intValue ?? 4
            // A null value removes an option.
            guard let text = value["opt_value"]?.stringValue else { continue }
            guard let option = DHCPOption(name: name, value: text, version: version == 6 ? .v6 : .v4), version != 5 else {
                throw ResourceError.badRequest(
                    """
                    Invalid input for extra_dhcp_opts. Reason: '\(name)' with the value '\(text.prefix(64))' is \
                    not an option that can be handed out.
                    """
                )
            }
            guard seen.insert("\(version)/\(option.name)").inserted else {
                throw ResourceError.badRequest("Invalid input for extra_dhcp_opts. Reason: Duplicate option '\(name)'.")
            }
            result.append(["opt_name": .string(name), "opt_value": .string(text), "ip_version": JSONValue(version)])
        }
        return .array(result)
    }

    static func read(_ value: JSONValue) -> [DHCPOption] {
        (value.arrayValue ?? []).compactMap { item in
            DHCPOption(
                name: item["opt_name"]?.stringValue ?? "", value: item["opt_value"]?.stringValue ?? "",
                version: item["ip_version"]?.intValue == 6 ? .v6 : .v4)
        }
    }
}
