import BareMetalCore
import Client
import JSON
import Kernel

/// A command that an agent was given.
struct AgentCommand: Sendable {
    enum Status: String, Sendable {
        case running = "RUNNING"
        case succeeded = "SUCCEEDED"
        case failed = "FAILED"
        /// The agent's hardware managers are not those that listed the step.
        case otherVersion = "CLEAN_VERSION_MISMATCH"
    }

    let id: String
    /// Without the name of its extension: `execute_clean_step`.
    let name: String
    let status: Status
    /// The agent's error message; empty if there is none.
    let error: String
    let result: JSONValue

    /// - Throws: `HardwareFailure` for anything but a command.
    init(_ document: JSONValue) throws {
        guard let id = document["id"]?.stringValue, let name = document["command_name"]?.stringValue,
            let word = document["command_status"]?.stringValue, let status = Status(rawValue: word)
        else { throw HardwareFailure(description: "The agent has answered what is not a command.") }
        (self.id, self.name, self.status) = (id, name, status)
        let error = document["command_error"]
        let words = error?["details"]?.stringValue ?? error?["message"]?.stringValue ?? error?["error"]?.stringValue ?? error?.stringValue
        self.error = HardwareFailure.plain(words ?? "", max: 1000)
        result = document["command_result"] ?? .null
    }

    /// The result of a command that has ended; nil while it runs.
    ///
    /// - Parameter words: what the command does, for the error message.
    /// - Throws: `HardwareFailure` with the agent's error message.
    func outcome(of words: String) throws -> JSONValue? {
        switch status {
        case .running: return nil
        case .succeeded: return result
        case .failed: throw HardwareFailure(description: "The agent has failed at \(words): \(error.isEmpty ? "no reason given" : error)")
        case .otherVersion:
            throw HardwareFailure(description: "The agent at \(words) is not the one that listed its steps: its machine has started again.")
        }
    }
}

/// The command API of an agent.
protocol AgentChannel: Sendable {
    /// Starts a command.
    ///
    /// - Parameters:
    ///   - name: with its extension: `clean.execute_clean_step`.
    ///   - waits: return when the command has ended.
    /// - Throws: `HardwareFailure`, which may pass if the agent cannot be reached.
    func run(_ name: String, _ parameters: JSONObject, waits: Bool) async throws -> AgentCommand
    /// The commands since the agent's start, oldest first.
    func commands() async throws -> [AgentCommand]
}

/// The command API over HTTPS, as ironic-python-agent has it.
struct HTTPAgentChannel: AgentChannel {
    let url: String
    let token: Secret<String>
    /// PEM; nil for a certificate that the machine's authorities verify.
    let certificate: String?

    /// Commands that are waited for, such as the inventory of a machine with many devices, take minutes.
    private static let timeout: Duration = .seconds(300)
    private static let bytesMax = 4 << 20

    func run(_ name: String, _ parameters: JSONObject, waits: Bool) async throws -> AgentCommand {
        let body: JSONValue = ["name": .string(name), "params": .object(parameters)]
        return try AgentCommand(try await send("POST", "wait=\(waits)&", body, words: name))
    }

    func commands() async throws -> [AgentCommand] {
        try await send("GET", "", nil, words: "its commands")["commands"]?.arrayValue?.map(AgentCommand.init) ?? []
    }

    private func send(_ method: String, _ query: String, _ body: JSONValue?, words: String) async throws -> JSONValue {
        let request = HTTPTransport.Outgoing(
            method: method, url: "\(url)/v1/commands/?\(query)agent_token=\(token.exposed)",
            headers: [("accept", "application/json"), ("content-type", "application/json")], body: body?.encoded ?? [])
        let answer: HTTPTransport.Incoming
        do {
            answer =
                if let certificate {
                    try await HTTPTransport.exchange(
                        request, trusting: certificate, timeout: HTTPAgentChannel.timeout, bytesMax: HTTPAgentChannel.bytesMax)
                } else {
                    try await HTTPTransport.to(verifies: true, certificateFile: nil).exchange(
                        request, timeout: HTTPAgentChannel.timeout, bytesMax: HTTPAgentChannel.bytesMax)
                }
        } catch let error as TransportError {
            throw HardwareFailure(description: "The agent at \(url) cannot be reached: \(error.reason).", isTemporary: true)
        } catch let error as ResourceError {
            throw HardwareFailure(description: "The agent at \(url) has answered what is unusable: \(error.message)")
        }
        let document: JSONValue
        do { document = try JSONValue.parse(answer.body) } catch {
            throw HardwareFailure(description: "The agent at \(url) has answered \(answer.status) to \(words), without JSON.")
        }
        guard (200..<300).contains(answer.status) else {
            let text = HardwareFailure.plain(document["faultstring"]?.stringValue ?? "", max: 500)
            let isBusy = answer.status == 409 || text.lowercased().contains("agent is busy")
            throw HardwareFailure(
                description: "The agent at \(url) has answered \(answer.status) to \(words)\(text.isEmpty ? "." : ": \(text)")",
                isTemporary: isBusy || answer.status >= 500, status: answer.status)
        }
        return document
    }
}
