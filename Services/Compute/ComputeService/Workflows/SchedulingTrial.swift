import Contracts
import Database
import JSON
import Kernel

/// A question to the scheduler about one server that claims nothing, with the smaller flavors to ask about where it
/// finds no host.
struct SchedulingTrial: Sendable {
    private let question: ScheduleServer
    private let smaller: [(id: String, name: String, question: ScheduleServer)]

    /// Number of smaller flavors to try, and of those to name in the answer.
    private static let (flavorsMax, flavorsNamed) = (20, 3)

    /// Loads the trial for a server from its row; nil if the server does not exist.
    static func load(_ connection: Connection, server: String, operation: UUID128) throws -> SchedulingTrial? {
        guard var question = try SchedulingQuestion.load(connection, server: server, operation: operation.description)
        else { return nil }
        question.dryRun = true
        let rows = try connection.query(
            """
            SELECT f.flavorid, f.name, s.image, \(ServerProperties.ofImage) AS image_properties,
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
        let smaller = try rows.compactMap { row -> (id: String, name: String, question: ScheduleServer)? in
            let flavor: ServerFlavor = try row.value("flavor")
            var other = question
            do {
                let needs = try ServerNeeds(flavor, try row.optionalValue("image"), properties: try row.value("image_properties"))
                other.ask(for: needs, of: flavor)
            } catch let error as ResourceError where error.code == .badRequest {
                // No host fits this flavor, so it is not a suggestion.
                return nil
            }
            return (id: try row.string("flavorid"), name: try row.string("name"), question: other)
        }
        return SchedulingTrial(question: question, smaller: smaller)
    }

    /// The scheduler's answer; where nothing fits, `nearest` has the flavors that would.
    ///
    /// - Throws: 503 when the scheduler does not answer.
    func ask(_ compute: Compute) async throws -> SchedulingAnswer {
        var answer = try await compute.clients.scheduler.schedule(question, operation: compute.ambient.newUUID())
        guard answer.result == .rejected, !smaller.isEmpty else { return answer }
        let answers = try await SchedulingTrial.ask(smaller.map(\.question), together: false, compute).answers
        let fitting = zip(smaller, answers).map { SchedulingAnswer.Nearest.Flavor(id: $0.id, name: $0.name, fits: $1.fits ?? 0) }
            .filter { $0.fits > 0 }.prefix(SchedulingTrial.flavorsNamed)
        var nearest = answer.nearest ?? SchedulingAnswer.Nearest(resources: [:], zones: [:], without: [])
        nearest.flavors = Array(fitting)
        answer.nearest = nearest
        if !fitting.isEmpty {
            let words = fitting.map { "\($0.name) would fit \(SchedulingTrial.times($0.fits))" }
            answer.message = (answer.message ?? "") + " Flavor " + words.joined(separator: ", ") + "."
        }
        return answer
    }

    /// Tries all of them in order; each one finds the resources of the earlier ones taken.
    static func askTogether(
        _ questions: [ScheduleServer], without hosts: [String] = [], _ compute: Compute
    ) async throws -> ScheduleTrial.Answer {
        try await ask(questions, together: true, without: hosts, compute)
    }

    private static func ask(
        _ questions: [ScheduleServer], together: Bool, without hosts: [String] = [], _ compute: Compute
    ) async throws -> ScheduleTrial.Answer {
        try await compute.clients.scheduler.tryOut(
            ScheduleTrial(together: together, excludedHosts: hosts, requests: questions), operation: compute.ambient.newUUID())
    }

    private static func times(_ count: Int) -> String { count == 1 ? "once" : "\(count) times" }
}
