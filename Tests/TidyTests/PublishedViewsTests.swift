import Testing

/// Which services may name which tables in SQL.
@Suite struct PublishedViewsTests {
    /// Migrations of tables that all services use.
    private static let foundation: Set<String> = ["Foundation", "Repairs", "PlaneServices", "Replicas"]

    /// Owners of migrations whose name does not begin with the service's name.
    private static let ownersOfOthers = [
        "NorthboundChanges": "Network", "ConsoleTokens": "Compute", "ServerJobs": "Compute", "LiveMigration": "Compute",
        "PortBindings": "Network",
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

    private static func tables() throws -> [String: String?] {
        var tables: [String: String?] = [:]
        for migration in migrations {
            let word = migration.path.split(separator: "_").last.map { String($0.dropLast(".swift".count)) } ?? ""
            for match in migration.lines.joined(separator: "\n").matches(of: /CREATE TABLE (?:IF NOT EXISTS )?(\w+)/) {
                let owner = try #require(PublishedViewsTests.owner(word), "say who owns what \(migration.path) makes")
                tables.updateValue(owner, forKey: String(match.1))
            }
        }
        return tables
    }

    @Test func servicesNameOnlyTheirOwnTablesAndWhatOthersPublish() throws {
        let tables = try PublishedViewsTests.tables()
        #expect(tables.count > 60 && tables["ports"] == .some("Network"))
        var findings: [String] = []
        // Inspections compare the data of several services, and change nothing.
        for source in TidyTests.sources where source.path.hasPrefix("Services/") && !source.path.hasSuffix("Inspections.swift") {
            let service = String(source.path.split(separator: "/")[1])
            for (number, line) in source.lines.enumerated() {
                for match in line.matches(of: /(?:\b(?:FROM|JOIN|INTO|UPDATE|USING)\s+|,\s+(?=\w+\s+[a-z]\b))(\w+)/) {
                    guard let owner = tables[String(match.1)] else { continue }
                    let mayName = owner.map { $0 == service } ?? PublishedViewsTests.common.contains(String(match.1))
                    if !mayName { findings.append("\(source.path):\(number + 1) \(match.1), which is \(owner ?? "the foundation")'s") }
                }
            }
        }
        #expect(findings.isEmpty, "name what the owner publishes (docs/published-views.md): \(findings)")
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
