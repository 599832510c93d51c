import Foundation
import ServiceCatalog
import Testing

/// A service is described once, in `Shared/ServiceCatalog`; other code must derive lists of services from it.
@Suite struct ServiceListTests {
    /// Files that may list services, with the reason.
    private static let exempt: [String: String] = [
        "Package.swift": "declares the targets, one line per service"
    ]

    /// The doctor runs what the cores declare.
    @Test func theDoctorHasAllInspectionsAndQuotas() throws {
        let doctor = try #require(TidyTests.text("osctl/Doctor/Inspection+All.swift"))
        let declared = TidyTests.sources.filter { $0.path.hasPrefix("Services/") && $0.path.contains("Core/") }.flatMap { source in
            source.code.compactMap { $0.firstMatch(of: /^package enum (\w+(?:Inspections|Quotas))\b/).map { String($0.1) } }
        }
        #expect(declared.count >= 8)
        let missing = declared.filter { !doctor.contains("\($0).all") }
        #expect(missing.isEmpty, "osctl doctor does not run \(missing)")
    }

    /// Four services within six lines count as a list.
    private static let servicesMin = 4
    private static let window = 6

    /// Identifiers of a service in code: names, types, the OpenStack project, the port, the executable.
    static let words: [String: String] = {
        var words: [String: String] = [:]
        for service in CloudService.all {
            let camel = service.name.split(separator: "-").enumerated().map { $0 == 0 ? String($1) : $1.capitalized }.joined()
            let names = [service.name, service.section, service.project, camel, camel.prefix(1).uppercased() + camel.dropFirst()]
            for name in names + service.catalogTypes { words[name] = service.name }
            for name in names { words["wolke-" + name] = service.name }
            words[String(service.port)] = service.name
        }
        return words
    }()

    /// Words that count as a member of a list: strings, numbers, names of executables, members of a type. Excluded are names
    /// followed by a path of that service (`("compute", "/servers")` is a request), subscripts (`base["nova"]`) and calls.
    private static let pattern: NSRegularExpression? = {
        let request = #"(?!\s*[,:]\s*(?:["'][A-Z]+["'],\s*)?f?["']/)"#
        let text = #"(?<!\w\[)["']([\w-]+)["']"# + request
        let number = #"(?<![\w.])(\d{4})(?!\w)"#
        let executable = #"\b(wolke-[\w-]+)"#
        let member = #"(?:(?<![\w)\]?])|CloudService)\.(\w+)(?![\w(])"# + request
        do { return try NSRegularExpression(pattern: [text, number, executable, member].joined(separator: "|")) } catch { return nil }
    }()

    /// The services in a line that count as members of a list.
    static func named(_ line: String, isSwift: Bool) -> Set<String> {
        // The dependencies of one part are not a list of all services.
        guard let pattern, !line.contains("needs:") else { return [] }
        var found: Set<String> = []
        for match in pattern.matches(in: line, range: NSRange(line.startIndex..., in: line)) {
            for group in 1...4 {
                guard let range = Range(match.range(at: group), in: line), group < 4 || isSwift else { continue }
                if let service = words[String(line[range])] { found.insert(service) }
            }
        }
        return found
    }

    /// The first list of services in a text: its line number and the services.
    static func list(_ lines: [String], isSwift: Bool) -> (line: Int, services: Set<String>)? {
        let perLine = lines.map { named($0, isSwift: isSwift) }
        for (index, found) in perLine.enumerated() where !found.isEmpty {
            let services = perLine[index..<min(index + window, perLine.count)].reduce(into: Set<String>()) { $0.formUnion($1) }
            if services.count >= servicesMin { return (index + 1, services) }
        }
        return nil
    }

    private static func isProgram(_ path: String) -> Bool {
        let name = path.split(separator: "/").last ?? ""
        return path.hasSuffix(".swift") || path.hasSuffix(".py") || path == "Makefile" || path.hasPrefix(".ci/")
            || path.hasPrefix("deploy/") && !name.contains(".")
    }

    @Test func noProgramHasAListOfServicesOfItsOwn() throws {
        #expect(ServiceListTests.pattern != nil)
        var findings: [String] = []
        for path in TidyTests.tracked
        where ServiceListTests.isProgram(path) && !path.hasPrefix("Shared/ServiceCatalog/") && ServiceListTests.exempt[path] == nil
            && !path.hasPrefix("Tests/TidyTests/ServiceList")
        {
            guard let text = TidyTests.text(path) else { continue }
            if let found = ServiceListTests.list(text.components(separatedBy: "\n"), isSwift: path.hasSuffix(".swift")) {
                findings.append("\(path):\(found.line) \(found.services.sorted().joined(separator: ", "))")
            }
        }
        #expect(
            findings.isEmpty,
            "derive it from CloudService.all, or in Python from `osctl cloud services -o json`: \(findings.joined(separator: "\n"))")
    }

    @Test func listsAreRecognized() {
        let lists: [(String, Bool)] = [
            (#"SERVICES = ("identity", "placement", "compute", "network", "image")"#, false),
            (#"PORTS = {"identity": 5000, "placement": 8778, "compute": 8774, "volume": 8776}"#, false),
            ("for product in wolke-identity wolke-compute wolke-network wolke-block-storage; do", false),
            ("let services: [CloudService] = [.identity, .network, .placement, .blockStorage]", true),
            ("for port in (5000, 8774, 9696, 9292)", false),
            (#"[("identity", []), \#n ("glance", []), \#n ("network", ["ovn"]), \#n ("block_storage", [])]"#, true),
        ]
        for (text, isSwift) in lists {
            #expect(ServiceListTests.list(text.components(separatedBy: "\n"), isSwift: isSwift) != nil, "\(text)")
        }
        let others = [
            #"LISTS = [("identity", "/users"), ("compute", "/servers"), ("network", "/networks"), ("image", "/images")]"#,
            #"get(base["nova"]); get(base["neutron"]); get(base["glance"]); get(base["cinder"])"#,
        ]
        for text in others { #expect(ServiceListTests.list([text], isSwift: false) == nil, "\(text)") }
    }

    // MARK: the description

    @Test func everyServiceHasItsFolderAndTargets() throws {
        let package = try #require(TidyTests.text("Package.swift"))
        for service in CloudService.processes {
            #expect(TidyTests.tracked.contains { $0.hasPrefix("Services/") && $0.hasSuffix("/\(service.executable)/main.swift") })
            #expect(package.contains("\"\(service.executable)\""))
        }
        let mains = TidyTests.tracked.filter { $0.hasPrefix("Services/") && $0.hasSuffix("/main.swift") }
        #expect(mains.count == CloudService.processes.count + HostAgent.all.count, "each executable has a description")
    }

    @Test func namesTypesAndPortsMeanOneService() {
        let services = CloudService.processes
        for values in [services.map(\.name), services.map(\.section), services.map { "\($0.port)" }, services.flatMap(\.catalogTypes)] {
            #expect(Set(values).count == values.count, "\(values)")
        }
        for service in services {
            #expect(service.catalogTypes.contains(service.type) && !service.catalog.isEmpty)
            for type in service.catalogTypes where CloudService.all.contains(service) { #expect(CloudService(name: type) == service) }
        }
    }

    @Test func modulesHaveTheirInspections() {
        let files = TidyTests.tracked.filter { $0.hasPrefix("Services/") && $0.hasSuffix("Inspections.swift") }
        #expect(files.count >= 4)
        for path in files {
            let name = (path.split(separator: "/").last ?? "").dropLast(".swift".count)
            let folder = path.split(separator: "/")[1]
            #expect(
                TidyTests.sources.contains {
                    $0.path.hasPrefix("Services/\(folder)/\(folder)Service/")
                        && $0.lines.contains { $0.contains("inspections: \(name).all") }
                }, "the module of \(folder) lacks \(path)")
        }
    }

    @Test func thePagesNameEveryService() throws {
        let architecture = try #require(TidyTests.text("docs/architecture.md"))
        let operate = try #require(TidyTests.text("docs/operate.md"))
        for service in CloudService.processes {
            let row = architecture.components(separatedBy: "\n").first { $0.hasPrefix("| `\(service.executable)` |") }
            #expect(row?.hasSuffix("| \(service.port) |") == true, "docs/architecture.md, the table of executables: \(service.name)")
            #expect(architecture.contains("\(service.executable) :\(service.port)"), "docs/architecture.md, the diagram: \(service.name)")
            #expect(operate.contains(" \(service.port)"), "docs/operate.md, the ports: \(service.name)")
        }
    }
}
