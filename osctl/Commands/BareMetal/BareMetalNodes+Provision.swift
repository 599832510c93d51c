import ArgumentParser
import BareMetalCore
import Client
import JSON
import Kernel
import ServiceCatalog

/// A command that changes the provision state of nodes.
protocol ProvisionVerb {
    associatedtype Options: ProvisionOptions = NoProvisionOptions
    static var verb: String { get }
    static var abstract: String { get }
    /// The request's target, if it differs from the command's name.
    static var target: String { get }
    static var goal: Set<String> { get }
    /// Failed states whose name does not end in "failed".
    static var failed: Set<String> { get }
}

extension ProvisionVerb {
    static var target: String { verb }
    static var failed: Set<String> { [] }
}

protocol ProvisionOptions: ParsableArguments {
    func members() throws -> JSONObject
}

struct NoProvisionOptions: ProvisionOptions {
    func members() -> JSONObject { [:] }
}

extension BareMetalNodes {
    static let provisioning: [any ParsableCommand.Type] = [
        Provision<Manage>.self, Provision<Inspect>.self, Provision<Provide>.self, Provision<Clean>.self, Provision<Adopt>.self,
        Provision<Deploy>.self, Provision<Undeploy>.self, Provision<Rebuild>.self, Provision<Rescue>.self, Provision<Unrescue>.self,
        Provision<Service>.self, Provision<Unhold>.self, Provision<Abort>.self,
    ]

    struct Provision<V: ProvisionVerb>: APICommand {
        static var configuration: CommandConfiguration { CommandConfiguration(commandName: V.verb, abstract: V.abstract) }

        @Argument(help: ArgumentHelp("Names or ids.", valueName: "node")) var nodes: [String]
        @OptionGroup var options: V.Options
        @OptionGroup var waiting: WaitOptions
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            var body = try options.members()
            body["target"] = .string(V.target)
            let request = JSONValue.object(body)
            var accepted: [String] = []
            let failures = await Several.run(nodes, api) { name in
                _ = try await api.client.request(
                    service: .bareMetal, method: .put, path: kind.path(id: name) + "/states/provision", body: request,
                    microversion: kind.microversion)
                accepted.append(name)
            }
            if waiting.wait, !V.goal.isEmpty {
                for name in accepted {
                    let rule = BareMetalNodes.rule(failed: failed.union(V.failed))
                    let node = try await Waiter(api, limit: waiting.timeout).reach(V.goal, kind, id: name, rule: rule)
                    print("Node \(kind.title(node)) is \(node[rule.field]?.stringValue ?? "").")
                }
            }
            if failures > 0 { throw ExitCode(1) }
        }
    }

    /// Parses steps that are given as JSON or in a file.
    private static func steps(_ text: String, _ option: String) throws -> JSONValue {
        let text = text.drop(while: \.isWhitespace).hasPrefix("[") ? text : try UserFile.text(text)
        do { return try JSONValue.parse(text) } catch { throw CommandFailure("\(option) is not JSON: \(error)") }
    }

    enum Manage: ProvisionVerb {
        static let verb = "manage"
        static let abstract = "Make nodes manageable, after a check that their controllers respond."
        static let goal: Set = [ProvisionState.manageable.rawValue]
        static let failed: Set = [ProvisionState.enroll.rawValue]
    }

    enum Inspect: ProvisionVerb {
        static let verb = "inspect"
        static let abstract = "Detect the hardware of nodes."
        static let goal: Set = [ProvisionState.manageable.rawValue]
    }

    enum Provide: ProvisionVerb {
        static let verb = "provide"
        static let abstract = "Clean nodes and make them available."
        static let goal: Set = [ProvisionState.available.rawValue]
    }

    enum Clean: ProvisionVerb {
        struct Options: ProvisionOptions {
            @Option(help: ArgumentHelp("Steps, as JSON or in a file.", valueName: "json")) var cleanSteps: String

            func members() throws -> JSONObject { ["clean_steps": try steps(cleanSteps, "--clean-steps")] }
        }
        static let verb = "clean"
        static let abstract = "Run cleaning steps on manageable nodes."
        static let goal: Set = [ProvisionState.manageable.rawValue]
    }

    enum Adopt: ProvisionVerb {
        static let verb = "adopt"
        static let abstract = "Adopt nodes that are already in use."
        static let goal: Set = [ProvisionState.active.rawValue]
    }

    struct DeployOptions: ProvisionOptions {
        @Option(help: ArgumentHelp("A gzipped config drive, as base64 in a file.", valueName: "file")) var configDrive: String?
        @Option(help: ArgumentHelp("Additional steps, as JSON or in a file.", valueName: "json")) var deploySteps: String?

        func members() throws -> JSONObject {
            var members = JSONObject()
            if let configDrive { members["configdrive"] = .string(try UserFile.text(configDrive)) }
            if let deploySteps { members["deploy_steps"] = try steps(deploySteps, "--deploy-steps") }
            return members
        }
    }

    enum Deploy: ProvisionVerb {
        typealias Options = DeployOptions
        static let verb = "deploy"
        static let abstract = "Deploy nodes as their instance_info describes."
        static let target = "active"
        static let goal: Set = [ProvisionState.active.rawValue]
    }

    enum Undeploy: ProvisionVerb {
        static let verb = "undeploy"
        static let abstract = "Remove the instances of nodes: power the nodes off and clean them."
        static let target = "deleted"
        static let goal: Set = [ProvisionState.available.rawValue]
    }

    enum Rebuild: ProvisionVerb {
        typealias Options = DeployOptions
        static let verb = "rebuild"
        static let abstract = "Deploy nodes again."
        static let goal: Set = [ProvisionState.active.rawValue]
    }

    enum Rescue: ProvisionVerb {
        struct Options: ProvisionOptions {
            @Option(help: "The password of the rescue system.") var rescuePassword: String

            func members() -> JSONObject { ["rescue_password": .string(rescuePassword)] }
        }
        static let verb = "rescue"
        static let abstract = "Start a rescue system."
        static let goal: Set = [ProvisionState.rescue.rawValue]
    }

    enum Unrescue: ProvisionVerb {
        static let verb = "unrescue"
        static let abstract = "End the rescue system."
        static let goal: Set = [ProvisionState.active.rawValue]
    }

    enum Service: ProvisionVerb {
        struct Options: ProvisionOptions {
            @Option(help: ArgumentHelp("Steps, as JSON or in a file.", valueName: "json")) var serviceSteps: String

            func members() throws -> JSONObject { ["service_steps": try steps(serviceSteps, "--service-steps")] }
        }
        static let verb = "service"
        static let abstract = "Run steps on active nodes."
        static let goal: Set = [ProvisionState.active.rawValue]
    }

    enum Unhold: ProvisionVerb {
        static let verb = "unhold"
        static let abstract = "Continue the work of nodes on hold."
        static let goal: Set<String> = []
    }

    enum Abort: ProvisionVerb {
        static let verb = "abort"
        static let abstract = "Abort the work that nodes are waiting for."
        static let goal = BareMetalNodes.failed.union([ProvisionState.active.rawValue])
    }
}
