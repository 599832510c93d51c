package import Contracts
package import JSON
import Kernel

extension SchedulingRequest {
    private static let listMax = 1000
    private static let textBytesMax = 255

    /// Decodes a message body.
    ///
    /// - Throws: 400 naming the member, its value and the rule.
    package init(document: JSONValue) throws { try self.init(try SchedulingRequest.read(document)) }

    /// Decodes a request to the scheduler.
    ///
    /// - Throws: 400 naming the member and the rule.
    package static func read<Question: MessageQuestion>(_ document: JSONValue) throws -> Question {
        do { return try Question(document: document) } catch let error as DecodingError {
            throw ResourceError.badRequest("Invalid input for \(error.path.isEmpty ? "the request" : error.path): it \(error.problem).")
        }
    }

    /// - Throws: 400 naming the member, its value and the rule.
    package init(_ asked: ScheduleServer) throws {
        operationID = try SchedulingRequest.uuid(asked.operationID, "operation_id")
        consumerID = try SchedulingRequest.uuid(asked.consumerID, "consumer_id")
        projectID = try SchedulingRequest.text(asked.projectID, "project_id") ?? ""
        userID = try SchedulingRequest.text(asked.userID, "user_id") ?? ""
        zone = try SchedulingRequest.text(asked.zone, "availability_zone")
        host = try SchedulingRequest.text(asked.host, "host")
        excludedHosts = Set(try SchedulingRequest.list(asked.excludedHosts, "exclude_hosts"))
        sameHost = try SchedulingRequest.uuids(asked.sameHost, "same_host")
        differentHost = try SchedulingRequest.uuids(asked.differentHost, "different_host")
        aggregateMetadata = asked.aggregateMetadata.texts
        dryRun = asked.dryRun
        group = try asked.group.map(SchedulingRequest.group)
        for (name, amount) in asked.resources where !(0...ServerNeeds.amountMax).contains(amount) {
            throw SchedulingRequest.wrong(
                "resources.\(name)", JSONValue(amount), "must be a whole number from 0 to \(ServerNeeds.amountMax)")
        }
        let needs = try ServerNeeds(
            resources: asked.resources, requiredTraits: try SchedulingRequest.list(asked.requiredTraits, "required_traits"),
            forbiddenTraits: try SchedulingRequest.list(asked.forbiddenTraits, "forbidden_traits"),
            extraSpecs: asked.flavorExtraSpecs.texts, imageProperties: asked.imageProperties.texts,
            isHardwareChecked: asked.isHardwareChecked)
        (requiredTraits, forbiddenTraits) = (needs.requiredTraits, needs.forbiddenTraits)
        (aggregateSpecs, architecture, hypervisorType) = (needs.aggregateSpecs, needs.architecture, needs.hypervisorType)
        resources = needs.resources.sorted { $0.key < $1.key }.map { ResourceAmount($0.key, $0.value) }
        guard !resources.isEmpty else {
            throw SchedulingRequest.wrong("resources", JSONValue(asked.resources.description), "must name at least one amount above 0")
        }
    }

    // MARK: members

    private static func wrong(_ name: String, _ value: JSONValue, _ rule: String) -> ResourceError {
        .badRequest("Invalid input for \(name). Value: \(value.description.prefix(120)). It \(rule).")
    }

    private static func uuid(_ text: String, _ name: String) throws -> UUID128 {
        guard let uuid = UUID128(text) else { throw wrong(name, .string(text), "must be a uuid") }
        return uuid
    }

    /// Nil for an empty text.
    private static func text(_ text: String?, _ name: String) throws -> String? {
        guard let text, !text.isEmpty else { return nil }
        guard text.utf8.count <= textBytesMax else { throw wrong(name, .string(text), "must be text of at most \(textBytesMax) bytes") }
        return text
    }

    private static func list(_ texts: [String], _ name: String) throws -> [String] {
        guard texts.count <= listMax else { throw wrong(name, JSONValue(texts), "must be a list of at most \(listMax) texts") }
        return texts
    }

    private static func uuids(_ texts: [String], _ name: String) throws -> [UUID128] {
        try list(texts, name).map { try uuid($0, name) }
    }

    private static func group(_ asked: ScheduleServer.Group) throws -> Group {
        guard let id = try text(asked.id, "group.id") else { throw wrong("group.id", .string(asked.id), "must be text") }
        guard let policy = GroupPolicy(rawValue: asked.policy) else {
            throw wrong(
                "group.policy", .string(asked.policy), "must be affinity, anti-affinity, soft-affinity or soft-anti-affinity")
        }
        let rule = asked.rules["max_server_per_host"]
        let maxPerHost = rule.flatMap { $0.intValue ?? $0.stringValue.flatMap { Int($0) } } ?? 1
        guard (1...ServerNeeds.amountMax).contains(maxPerHost) else {
            throw wrong("group.rules.max_server_per_host", rule ?? .null, "must be at least 1")
        }
        return Group(id: id, policy: policy, maxPerHost: maxPerHost, members: try uuids(asked.members, "group.members"))
    }
}
