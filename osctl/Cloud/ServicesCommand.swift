import ArgumentParser
import JSON
import Kernel
import ServiceCatalog

/// `osctl cloud services`: the services of this release, as a table or as JSON.
struct ServicesCommand: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "services", abstract: "The services of this release: executables, ports, catalog, microversions.",
        discussion: """
            No cloud has to run. Ports are those of the cloud in --state, the standard ones where there is none. The JSON form \
            names everything; its members are only added to.
            """)

    @OptionGroup var options: CloudOptions
    @Option(name: [.customShort("o"), .customLong("output")], help: "table or json.")
    var format: StatusCommand.Format = .table

    func run() async throws {
        let layout = try options.layout()
        switch format {
        case .json: print(ServicesCommand.json(layout).description)
        case .table: print(ServicesCommand.table(layout))
        }
    }

    static func table(_ layout: CloudLayout) -> String {
        Text.table(
            ["SERVICE", "EXECUTABLE", "URL", "OPERATORS", "TYPES", "MICROVERSIONS"],
            CloudService.all.map { service in
                [
                    service.name + (service.isOptional ? " (optional)" : ""), service.executable, CloudFiles.url(service, layout),
                    String(layout.port(service.operatorPort)),
                    service.catalogTypes.joined(separator: " "),
                    service.microversions.map { "\($0.serviceType) \($0.minimum) to \($0.maximum)" } ?? "-",
                ]
            })
    }

    static func json(_ layout: CloudLayout) -> JSONValue {
        [
            "services": .array(CloudService.all.map { json($0, layout) }),
            "gateways": .array(
                CloudService.gateways.map { gateway in
                    [
                        "executable": .string(gateway.executable), "section": .string(gateway.section),
                        "port": JSONValue(layout.port(gateway.port)),
                    ]
                }),
            "agents": .array(
                HostAgent.all.map { agent in
                    [
                        "executable": .string(agent.executable), "section": .string(agent.section),
                        "port": JSONValue(layout.port(agent.port)),
                    ]
                }),
        ]
    }

    private static func json(_ service: CloudService, _ layout: CloudLayout) -> JSONValue {
        let versions = service.microversions.map { versions -> JSONValue in
            [
                "name": .string(versions.serviceType), "minimum": .string(versions.minimum.description),
                "maximum": .string(versions.maximum.description),
            ]
        }
        return [
            "name": .string(service.name), "title": .string(service.title), "project": .string(service.project),
            "executable": .string(service.executable), "section": .string(service.section),
            "url": .string(CloudFiles.url(service, layout)), "port": JSONValue(layout.port(service.port)),
            "operator_port": JSONValue(layout.port(service.operatorPort)),
            "version_path": .string(service.versionPath), "types": .array(service.catalogTypes.map { .string($0) }),
            "catalog": .array(service.catalog.map { ["type": .string($0.type), "path": .string($0.path)] }),
            "microversions": versions ?? .null, "has_quotas": .bool(service.quotas != nil),
            "has_workflows": .bool(service.hasWorkflows), "is_optional": .bool(service.isOptional),
            "is_present": .bool(layout.processes.contains(service)),
        ]
    }
}
