import Client
import Contracts
import JSON
import Kernel
import Messaging
import Telemetry

/// The scheduler and the record of allocations.
package protocol SchedulerNeighbour: Sendable {
    /// Finds and claims a host; the same operation again gives the same answer.
    func schedule(_ question: ScheduleServer, operation: UUID128) async throws -> SchedulingAnswer
    /// Finds hosts for several servers and claims nothing.
    func tryOut(_ trial: ScheduleTrial, operation: UUID128) async throws -> ScheduleTrial.Answer
    /// Gives back what a consumer holds; nothing held is fine.
    func release(consumer: String) async throws
}

/// Ports, as Network manages them, for the subject that Network's policy decides about.
package protocol NetworkNeighbour: Sendable {
    /// - Returns: the port's id.
    func createPort(_ port: JSONObject, as subject: ActingSubject, operation: String) async throws -> String
    /// Changes the members that are given.
    func updatePort(_ id: String, _ changes: JSONObject, as subject: ActingSubject) async throws
    /// Puts all the ports into a security group, or takes them out of it; none where it fails.
    func changeGroup(_ group: String, adds: Bool, ports: [String], as subject: ActingSubject) async throws
    /// A port that is not there is fine.
    func deletePort(_ id: String, as subject: ActingSubject) async throws
}

/// Volumes and their attachments, as Block Storage manages them, for the subject that its policy decides about.
package protocol VolumeNeighbour: Sendable {
    /// - Returns: the volume's id.
    func createVolume(_ volume: JSONObject, as subject: ActingSubject, operation: String) async throws -> String
    /// A volume that is not there is fine.
    func deleteVolume(_ id: String, as subject: ActingSubject) async throws
    /// Reserves and connects a volume for a server on a host.
    func attach(_ attachment: VolumeAttachRequest) async throws -> VolumeAttachAnswer
    /// The guest has it.
    func complete(attachment: String, as subject: ActingSubject) async throws
    /// An attachment that is not there is fine.
    func detach(attachment: String, as subject: ActingSubject) async throws
}

/// Which volume goes to which server, as which device on which host; `operation` makes a repetition the same one.
package struct VolumeAttachRequest: Sendable {
    package var volumeID: String
    package var serverID: String
    package var subject: ActingSubject
    package var host: String
    package var device: String
    package var operation: String
}

/// What Block Storage says to a `VolumeAttachRequest`.
package struct VolumeAttachAnswer: Sendable {
    package var attachmentID: String
    /// How the host reaches the volume, in the form of the agent's message.
    package var connection: JSONValue

    package init(attachmentID: String, connection: JSONValue) {
        self.attachmentID = attachmentID
        self.connection = connection
    }
}

/// The services that Compute calls.
package struct Neighbours: Sendable {
    package let scheduler: any SchedulerNeighbour
    package let network: any NetworkNeighbour
    package let volumes: any VolumeNeighbour

    package init(scheduler: any SchedulerNeighbour, network: any NetworkNeighbour, volumes: any VolumeNeighbour) {
        self.scheduler = scheduler
        self.network = network
        self.volumes = volumes
    }

    /// The real ones.
    package init(client: RESTClient, bus: any MessageBus) {
        self.init(
            scheduler: RemoteScheduler(client: client, bus: bus), network: RemoteNetwork(client: client),
            volumes: RemoteVolumes(client: client))
    }
}

struct RemoteScheduler: SchedulerNeighbour {
    let client: RESTClient
    let bus: any MessageBus

    func schedule(_ question: ScheduleServer, operation: UUID128) async throws -> SchedulingAnswer {
        try await ask(question, operation)
    }

    func tryOut(_ trial: ScheduleTrial, operation: UUID128) async throws -> ScheduleTrial.Answer { try await ask(trial, operation) }

    private func ask<Question: MessageQuestion>(_ question: Question, _ operation: UUID128) async throws -> Question.Answer {
        try await bus.request(question, to: .placementSchedule, id: operation, timeout: .seconds(15), expiration: .seconds(30))
    }

    func release(consumer: String) async throws {
        try await client.delete(.placement, "/allocations/\(consumer)", missingIsFine: true)
    }
}

struct RemoteNetwork: NetworkNeighbour {
    let client: RESTClient

    func createPort(_ port: JSONObject, as subject: ActingSubject, operation: String) async throws -> String {
        let answer = try await client.acting(for: subject).post(.network, "/ports", ["port": .object(port)], idempotencyKey: operation)
        guard let id = answer["port"]?["id"]?.stringValue else {
            throw ResourceError.unavailable("Network answered a port without an id")
        }
        return id
    }

    func updatePort(_ id: String, _ changes: JSONObject, as subject: ActingSubject) async throws {
        try await client.acting(for: subject).put(.network, "/ports/\(id)", ["port": .object(changes)])
    }

    func changeGroup(_ group: String, adds: Bool, ports: [String], as subject: ActingSubject) async throws {
        try await client.acting(for: subject).put(
            .network, "/wolke/port-security-groups",
            ["port_security_groups": ["ports": JSONValue(ports), adds ? "add" : "remove": .string(group)]])
    }

    func deletePort(_ id: String, as subject: ActingSubject) async throws {
        try await client.acting(for: subject).delete(.network, "/ports/\(id)", missingIsFine: true)
    }
}

struct RemoteVolumes: VolumeNeighbour {
    let client: RESTClient

    func createVolume(_ volume: JSONObject, as subject: ActingSubject, operation: String) async throws -> String {
        let answer = try await client.acting(for: subject).post(
            .blockStorage, "/v3/\(subject.project)/volumes", ["volume": .object(volume)], idempotencyKey: operation)
        guard let id = answer["volume"]?["id"]?.stringValue else {
            throw ResourceError.unavailable("Block Storage answered a volume without an id")
        }
        return id
    }

    func deleteVolume(_ id: String, as subject: ActingSubject) async throws {
        try await client.acting(for: subject).delete(.blockStorage, "/v3/\(subject.project)/volumes/\(id)", missingIsFine: true)
    }

    func attach(_ request: VolumeAttachRequest) async throws -> VolumeAttachAnswer {
        let connector: JSONValue = [
            "host": .string(request.host), "mountpoint": .string(request.device), "multipath": false,
        ]
        let answer = try await client.acting(for: request.subject).post(
            .blockStorage, "/v3/\(request.subject.project)/attachments",
            [
                "attachment": [
                    "volume_uuid": .string(request.volumeID), "instance_uuid": .string(request.serverID),
                    "connector": connector,
                ]
            ], microversion: "latest", idempotencyKey: request.operation)
        guard let attachment = answer["attachment"], let id = attachment["id"]?.stringValue,
            let connection = attachment["connection_info"], connection["driver"]?.stringValue != nil
        else { throw ResourceError.unavailable("Block Storage answered an attachment without a connection") }
        return VolumeAttachAnswer(attachmentID: id, connection: connection)
    }

    func complete(attachment: String, as subject: ActingSubject) async throws {
        try await client.acting(for: subject).post(
            .blockStorage, "/v3/\(subject.project)/attachments/\(attachment)/action", ["os-complete": [:]],
            microversion: "latest", idempotencyKey: "complete:\(attachment)")
    }

    func detach(attachment: String, as subject: ActingSubject) async throws {
        try await client.acting(for: subject).delete(.blockStorage, "/v3/\(subject.project)/attachments/\(attachment)", missingIsFine: true)
    }
}
