import Foundation
import Testing

/// Services name only their own tables and published views in SQL.
@Suite struct PublishedViewsTests {
    /// Migrations of tables that all services use.
    private static let foundation: Set<String> = ["Foundation", "Repairs", "PlaneServices", "Replicas"]

    /// Owners of migrations whose name does not begin with the service's name.
    private static let ownersOfOthers = [
        "NorthboundChanges": "Network", "ConsoleTokens": "Compute", "ServerJobs": "Compute", "LiveMigration": "Compute",
        "PortBindings": "Network", "TokenPlans": "Identity", "VirtualPorts": "Network", "NorthboundBatches": "Network",
        "KeptDisks": "Compute", "ServerProgress": "Compute",
    ]

    /// The owner of a migration's tables; `.some(nil)` for tables that all services use, nil if unknown.
    private static func owner(_ migration: String) -> String?? {
        if foundation.contains(migration) { return .some(nil) }
        if let owner = ownersOfOthers[migration] { return owner }
        // The longest matching name, because ComputeAgent's begins with Compute's.
        return TidyTests.services.filter(migration.hasPrefix).max { $0.count < $1.count }.map { .some($0) }
    }

    /// Shared tables that services may name; the others belong to modules of `Shared`.
    private static let common: Set<String> = [
        // Nova lists and deletes the services of the control plane.
        "plane_services",
        // Identity writes records about users who change themselves.
        "audit_records",
    ]

    private static let migrations = TidyTests.sources.filter { $0.path.hasPrefix("Shared/Schema/Migration0") }

    /// Owners of tables and of functions that are not published.
    private static func relations() throws -> [String: String?] {
        var relations: [String: String?] = [:]
        for migration in migrations {
            let word = migration.path.split(separator: "_").last.map { String($0.dropLast(".swift".count)) } ?? ""
            let creation = /(?:CREATE TABLE (?:IF NOT EXISTS )?|CREATE (?:OR REPLACE )?FUNCTION |ALTER FUNCTION .* RENAME TO )(\w+)/
            for match in migration.lines.joined(separator: "\n").matches(of: creation) where !match.1.hasPrefix("published_") {
                let owner = try #require(PublishedViewsTests.owner(word), "add the owner of the tables of \(migration.path)")
                relations.updateValue(owner, forKey: String(match.1))
            }
        }
        return relations
    }

    /// The service of a source file; nil for the modules of `Shared`, which run in the processes of all services.
    private static func service(_ path: String) -> String? {
        path.hasPrefix("Services/") ? String(path.split(separator: "/")[1]) : nil
    }

    /// Code that reads other tables on purpose.
    private static func isExempt(_ path: String) -> Bool {
        // Inspections compare the data of several services, and change nothing.
        path.hasSuffix("Inspections.swift") || ["Shared/Schema/", "Shared/TestKit/"].contains(where: path.hasPrefix)
    }

    @Test func servicesNameOnlyOwnTablesAndPublishedViews() throws {
        let relations = try PublishedViewsTests.relations()
        #expect(relations.count > 80 && relations["ports"] == .some("Network") && relations["token_state"] == .some("Identity"))
        let published = PublishedViewsTests.published()
        var findings: [String] = []
        for source in TidyTests.sources where source.path.hasPrefix("Services/") || source.path.hasPrefix("Shared/") {
            guard !PublishedViewsTests.isExempt(source.path) else { continue }
            findings += PublishedViewsTests.findings(source, relations, published)
        }
        #expect(findings.isEmpty, "name what the owner publishes (docs/published-views.md): \(findings)")
    }

    /// The names of published views and functions.
    private static func published() -> Set<String> {
        Set(
            migrations.flatMap { migration in
                migration.lines.joined(separator: "\n").matches(of: /CREATE (?:OR REPLACE )?(?:VIEW|FUNCTION) (published_\w+)/)
                    .map { String($0.1) }
            })
    }

    /// Relations of other services, and functions that do not exist, in the statements of a source.
    private static func findings(_ source: TidyTests.Source, _ relations: [String: String?], _ published: Set<String>) -> [String] {
        let service = PublishedViewsTests.service(source.path)
        return source.lines.enumerated().flatMap { number, line -> [String] in
            guard !line.trimmingCharacters(in: .whitespaces).hasPrefix("//") else { return [] }
            let relation = /(?:\b(?:FROM|JOIN|INTO|UPDATE|USING)\s+|,\s+(?=\w+\s+(?:AS\s+)?[a-z]{1,2}\b))(\w+)/
            let tables = line.matches(of: relation).map { String($0.1) }
            let functions = line.matches(of: /\b([a-z]+_\w+)\(/).map { String($0.1) }
            return Set(tables + functions).sorted().compactMap { name in
                if name.hasPrefix("published_"), functions.contains(name), !published.contains(name) {
                    return "\(source.path):\(number + 1) \(name), which no migration creates"
                }
                guard let owner = relations[name] else { return nil }
                let mayName = owner.map { $0 == service } ?? (service == nil || PublishedViewsTests.common.contains(name))
                return mayName ? nil : "\(source.path):\(number + 1) \(name), which is \(owner ?? "the foundation")'s"
            }
        }
    }

    @Test(arguments: [
        ("SELECT id FROM ports p", true), ("SELECT id FROM published_ports p", false),
        ("FROM published_ports p, servers AS sv", false), ("FROM published_ports p, ports AS po", true),
        ("SELECT resolve_token($1)", true), ("SELECT id FROM servers WHERE token_state(user_id) = 'valid'", true),
        ("AND published_network_usable(n.project_id, n.shared, $1)", false), ("AND published_network_usabel(n.project_id)", true),
    ])
    func theRuleSeesTablesAndCalls(line: String, isFound: Bool) throws {
        let source = TidyTests.Source(path: "Services/Compute/ComputeService/Store/Things.swift", lines: [line])
        let findings = try PublishedViewsTests.findings(source, PublishedViewsTests.relations(), PublishedViewsTests.published())
        #expect(findings.isEmpty == !isFound, "\(findings)")
    }

    /// Every view has a description for operators and readers, and a line in the documentation.
    @Test func everyPublishedViewIsDescribed() throws {
        let page = try #require(TidyTests.text("docs/published-views.md"))
        var names: Set<String> = []
        for migration in PublishedViewsTests.migrations {
            let text = migration.lines.joined(separator: "\n")
            for match in text.matches(of: /CREATE (?:OR REPLACE )?(?:VIEW|FUNCTION) (published_\w+)/) {
                let name = String(match.1)
                names.insert(name)
                #expect(["VIEW", "FUNCTION"].contains { text.contains("COMMENT ON \($0) \(name) IS") }, "\(name) has no comment")
                #expect(page.contains("`\(name)"), "\(name) is not in docs/published-views.md")
            }
        }
        #expect(names.count > 15)
    }
}
