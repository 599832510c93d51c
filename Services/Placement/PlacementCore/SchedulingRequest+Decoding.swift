import JSON
import Kernel

extension SchedulingRequest {
    private static let listMax = 1000
    private static let amountMax = Int(Int32.max)

    /// Reads the body of a `placement.schedule` message.
    ///
    /// - Throws: 400 that names the member, its value and the rule.
    package init(_ body: JSONValue) throws {
        guard body.objectValue != nil else { throw ResourceError.badRequest("The request is no object but \(body.kindName).") }
        operationID = try SchedulingRequest.uuid(body, "operation_id")
        consumerID = try SchedulingRequest.uuid(body, "consumer_id")
        projectID = try SchedulingRequest.text(body, "project_id") ?? ""
        userID = try SchedulingRequest.text(body, "user_id") ?? ""
        zone = try SchedulingRequest.text(body, "availability_zone")
        host = try SchedulingRequest.text(body, "host")
        requiredTraits = Set(try SchedulingRequest.texts(body, "required_traits"))
        forbiddenTraits = Set(try SchedulingRequest.texts(body, "forbidden_traits"))
        excludedHosts = Set(try SchedulingRequest.texts(body, "exclude_hosts"))
        sameHost = try SchedulingRequest.uuids(body, "same_host")
        differentHost = try SchedulingRequest.uuids(body, "different_host")
        aggregateMetadata = try SchedulingRequest.map(body, "aggregate_metadata")
        dryRun = try SchedulingRequest.bool(body, "dry_run")
        group = try SchedulingRequest.group(body["group"])
        var amounts = try SchedulingRequest.amounts(body["resources"])
        try apply(extraSpecs: try SchedulingRequest.map(body, "flavor_extra_specs"), &amounts)
        try apply(imageProperties: try SchedulingRequest.map(body, "image_properties"))
        resources = amounts.filter { $0.value > 0 }.sorted { $0.key < $1.key }.map { ResourceAmount($0.key, $0.value) }
        guard !resources.isEmpty else { throw SchedulingRequest.wrong("resources", body["resources"], "must name at least one amount above 0") }
    }

    // MARK: what flavors and images ask

    /// `resources:CLASS`, `trait:NAME` and `aggregate_instance_extra_specs:KEY` of a flavor.
    private mutating func apply(extraSpecs: [String: String], _ amounts: inout [String: Int]) throws {
        for (name, value) in extraSpecs {
            if name.hasPrefix("resources:") {
                let resourceClass = String(name.dropFirst(10))
                guard let amount = Int(value), (0...SchedulingRequest.amountMax).contains(amount) else {
                    throw SchedulingRequest.wrong(name, .string(value), "must be a whole number from 0 to \(SchedulingRequest.amountMax)")
                }
                amounts[resourceClass] = amount
            } else if name.hasPrefix("trait:") {
                try add(trait: String(name.dropFirst(6)), value)
            } else if name.hasPrefix("aggregate_instance_extra_specs:") {
                aggregateSpecs[String(name.dropFirst(31))] = value
            }
        }
    }

    private mutating func apply(imageProperties: [String: String]) throws {
        for (name, value) in imageProperties {
            if name.hasPrefix("trait:") { try add(trait: String(name.dropFirst(6)), value) }
        }
        architecture = (imageProperties["hw_architecture"] ?? imageProperties["architecture"])
            .map(SchedulingRequest.canonicalArchitecture)
        hypervisorType = (imageProperties["img_hv_type"] ?? imageProperties["hypervisor_type"])?.lowercased()
        if hypervisorType == "kvm" { hypervisorType = "qemu" }
    }

    private mutating func add(trait: String, _ value: String) throws {
        switch value {
        case "required": requiredTraits.insert(trait)
        case "forbidden": forbiddenTraits.insert(trait)
        default: throw SchedulingRequest.wrong("trait:\(trait)", .string(value), "must be required or forbidden")
        }
    }

    /// One name for each architecture.
    package static func canonicalArchitecture(_ text: String) -> String {
        switch text.lowercased() {
        case "amd64", "x64", "x86-64": "x86_64"
        case "arm64": "aarch64"
        case "i386", "i486", "i586", "x86": "i686"
        case let other: other
        }
    }

    // MARK: members of the body

    private static func wrong(_ name: String, _ value: JSONValue?, _ rule: String) -> ResourceError {
        .badRequest("Invalid input for \(name). Value: \((value ?? .null).description.prefix(120)). It \(rule).")
    }

    private static func uuid(_ body: JSONValue, _ name: String) throws -> UUID128 {
        guard let uuid = body[name]?.stringValue.flatMap({ UUID128($0) }) else { throw wrong(name, body[name], "must be a uuid") }
        return uuid
    }

    private static func text(_ body: JSONValue, _ name: String) throws -> String? {
        guard let value = body[name], !value.isNull else { return nil }
        guard let text = value.stringValue, text.utf8.count <= 255 else { throw wrong(name, value, "must be text of at most 255 bytes") }
        return text.isEmpty ? nil : text
    }

    private static func texts(_ body: JSONValue, _ name: String) throws -> [String] {
        guard let value = body[name], !value.isNull else { return [] }
        guard let items = value.arrayValue, items.count <= listMax else { throw wrong(name, value, "must be a list of at most \(listMax) texts") }
        return try items.map { item in
            guard let text = item.stringValue else { throw wrong(name, item, "must be text") }
            return text
        }
    }

    private static func uuids(_ body: JSONValue, _ name: String) throws -> [UUID128] {
        try texts(body, name).map { text in
            guard let uuid = UUID128(text) else { throw wrong(name, .string(text), "must be a uuid") }
            return uuid
        }
    }

    private static func bool(_ body: JSONValue, _ name: String) throws -> Bool {
        guard let value = body[name], !value.isNull else { return false }
        guard let bool = value.boolValue else { throw wrong(name, value, "must be true or false") }
        return bool
    }

    /// Texts by name; numbers and booleans are taken as their text.
    private static func map(_ body: JSONValue, _ name: String) throws -> [String: String] {
        guard let value = body[name], !value.isNull else { return [:] }
        guard let object = value.objectValue else { throw wrong(name, value, "must be an object") }
        var map: [String: String] = [:]
        for member in object.members where !member.value.isNull {
            map[member.name] = member.value.stringValue ?? member.value.description
        }
        return map
    }

    private static func amounts(_ value: JSONValue?) throws -> [String: Int] {
        guard let object = value?.objectValue else { throw wrong("resources", value, "must be an object") }
        var amounts: [String: Int] = [:]
        for member in object.members {
            guard let amount = member.value.intValue, (0...amountMax).contains(amount) else {
                throw wrong("resources.\(member.name)", member.value, "must be a whole number from 0 to \(amountMax)")
            }
            amounts[member.name] = amount
        }
        return amounts
    }

    private static func group(_ value: JSONValue?) throws -> Group? {
        guard let value, !value.isNull else { return nil }
        guard let id = try text(value, "id") else { throw wrong("group.id", value["id"], "must be text") }
        guard let policy = value["policy"]?.stringValue.flatMap({ GroupPolicy(rawValue: $0) }) else {
            throw wrong("group.policy", value["policy"], "must be affinity, anti-affinity, soft-affinity or soft-anti-affinity")
        }
        let rule = value["rules"]?["max_server_per_host"]
        let maxPerHost = rule.flatMap { $0.intValue ?? $0.stringValue.flatMap { Int($0) } } ?? 1
        guard (1...amountMax).contains(maxPerHost) else { throw wrong("group.rules.max_server_per_host", rule, "must be at least 1") }
        return Group(id: id, policy: policy, maxPerHost: maxPerHost, members: try uuids(value, "members"))
    }
}
