import Database
import JSON
import Kernel

/// A question to the scheduler about one server that claims nothing, with the smaller flavors to ask about where it
/// finds no host.
struct SchedulingTrial: Sendable {
    private var request: JSONObject
    private let smaller: [(id: String, name: String, request: JSONObject)]

    /// Flavors that are asked about, and of these named in the answer.
    private static let (flavorsMax, flavorsNamed) = (20, 3)

    /// Asks about the server as its row has it; nil when there is none.
    static func load(_ connection: Connection, server: String, operation: UUID128) throws -> SchedulingTrial? {
        guard var request = try SchedulingRequest.load(connection, server: server, operation: operation.description)?.objectValue
        else { return nil }
        request["dry_run"] = true
        let rows = try connection.query(
            """
            SELECT f.flavorid, f.name, s.image, s.image_properties,
                json_build_object('vcpus', f.vcpus, 'ram', f.memory_mb, 'disk', f.root_gb, 'ephemeral', f.ephemeral_gb,
                    'swap', f.swap_mb, 'extra_specs', f.extra_specs) AS flavor
            FROM servers s LEFT JOIN published_images i ON i.id = s.image_id JOIN flavors f
                ON f.vcpus <= (s.flavor->>'vcpus')::int AND f.memory_mb <= (s.flavor->>'ram')::int
                AND f.root_gb <= (s.flavor->>'disk')::int AND f.id <> s.flavor_id AND NOT f.disabled
                AND (f.is_public OR EXISTS (
                    SELECT 1 FROM flavor_access a WHERE a.flavor_id = f.id AND a.project_id = s.project_id))
                AND f.memory_mb >= coalesce(i.min_ram, 0)
                AND (s.image IS NULL OR f.root_gb::bigint << 30 >= greatest(coalesce(i.min_disk, 0)::bigint << 30,
                    coalesce(i.size, 0), coalesce(i.virtual_size, 0)))
            WHERE s.id = \(server) ORDER BY f.memory_mb DESC, f.vcpus DESC, f.root_gb DESC LIMIT \(flavorsMax)
            """)
        let smaller = try rows.map { row in
            var other = request
            let needs = SchedulingRequest.needs(try row.json("flavor"), try row.optionalJSON("image") ?? .null, try row.object("image_properties"))
            for member in needs.members { other[member.name] = member.value }
            return (id: try row.string("flavorid"), name: try row.string("name"), request: other)
        }
        return SchedulingTrial(request: request, smaller: smaller)
    }

    /// Whatever becomes of the host, any other one is meant.
    mutating func forgetRequestedHost() { request["host"] = .null }

    /// The scheduler's answer; where nothing fits, `nearest` has the flavors that would.
    ///
    /// - Throws: 503 when the scheduler does not answer.
    func ask(_ compute: Compute) async throws -> JSONValue {
        let scheduler = compute.neighbours.scheduler
        let answer = try await scheduler.schedule(.object(request), operation: compute.ambient.newUUID())
        guard answer["result"]?.stringValue == "rejected", !smaller.isEmpty else { return answer }
        let answers = try await SchedulingTrial.ask(smaller.map(\.request), together: false, compute)["answers"]?.arrayValue ?? []
        let fitting = zip(smaller, answers).filter { $1["fits"]?.intValue ?? 0 > 0 }.prefix(SchedulingTrial.flavorsNamed)
        var nearest = answer["nearest"]?.objectValue ?? [:]
        nearest["flavors"] = .array(
            fitting.map { ["id": .string($0.id), "name": .string($0.name), "fits": $1["fits"] ?? 0] })
        var members = answer.objectValue ?? [:]
        members["nearest"] = .object(nearest)
        if !fitting.isEmpty {
            let words = fitting.map { "\($0.name) would fit \(SchedulingTrial.times($1["fits"]?.intValue ?? 0))" }
            members["message"] = .string((answer["message"]?.stringValue ?? "") + " Flavor " + words.joined(separator: ", ") + ".")
        }
        return .object(members)
    }

    /// What becomes of all of them, in their order, when each finds taken what the earlier ones got.
    static func askTogether(_ trials: [SchedulingTrial], without hosts: [String] = [], _ compute: Compute) async throws -> JSONValue {
        try await ask(trials.map(\.request), together: true, without: hosts, compute)
    }

    private static func ask(
        _ requests: [JSONObject], together: Bool, without hosts: [String] = [], _ compute: Compute
    ) async throws -> JSONValue {
        try await compute.neighbours.scheduler.schedule(
            [
                "dry_run": true, "together": .bool(together), "exclude_hosts": JSONValue(hosts),
                "requests": .array(requests.map { .object($0) }),
            ], operation: compute.ambient.newUUID())
    }

    private static func times(_ count: Int) -> String { count == 1 ? "once" : "\(count) times" }
}
