package import Client
package import Contracts
package import JSON
package import Kernel
package import Messaging
import ServiceCatalog
import Telemetry

/// The scheduler and the record of allocations.
package protocol SchedulerClient: Sendable {
    /// Finds and claims a host. Repeating an operation gives the same answer.
    func schedule(_ question: ScheduleServer, operation: UUID128) async throws -> SchedulingAnswer
    /// Finds hosts for several servers and claims nothing.
    func tryOut(_ trial: ScheduleTrial, operation: UUID128) async throws -> ScheduleTrial.Answer
    /// Releases a consumer's allocations; succeeds if it has none.
    func release(consumer: String) async throws
    /// Moves a consumer's allocations to another consumer, replacing its own. Does nothing if the first has none.
    func move(_ allocations: AllocationMove) async throws
}

/// Allocations that change their consumer.
package struct AllocationMove: Sendable {
    package var from: String
    package var to: String
    package var project: String
    package var user: String
    /// Consumer types: `INSTANCE` or `MIGRATION`.
    package var fromType: String
    package var toType: String

    /// From a server to the record of its migration.
    static func holding(_ server: String, for migration: String, project: String, user: String) -> AllocationMove {
        AllocationMove(from: server, to: migration, project: project, user: user, fromType: "INSTANCE", toType: "MIGRATION")
    }

    /// From the record of the migration back to the server.
    static func returning(_ migration: String, to server: String, project: String, user: String) -> AllocationMove {
        AllocationMove(from: migration, to: server, project: project, user: user, fromType: "MIGRATION", toType: "INSTANCE")
    }
}

/// Ports, as Network manages them, for the subject that Network's policy decides about.
package protocol NetworkClient: Sendable {
    /// - Returns: the port's id.
    func createPort(_ port: JSONObject, as subject: ActingSubject, operation: String) async throws -> String
    /// Updates the given members.
    ///
    /// - Throws: 409 if a subnet among `fixed_ips` has no free address.
    func updatePort(_ id: String, _ changes: JSONObject, as subject: ActingSubject) async throws
    /// Adds all ports to a security group or removes them from it; on failure none is changed.
    func changeGroup(_ group: String, adds: Bool, ports: [String], as subject: ActingSubject) async throws
    /// Deletes a port; succeeds if it does not exist.
    func deletePort(_ id: String, as subject: ActingSubject) async throws
    /// Binds a port to an additional host. Succeeds if it is already bound to it.
    func bind(port id: String, host: String, as subject: ActingSubject) async throws
    /// Makes the binding to a host the active one; creates it if there is none.
    func activateBinding(port id: String, host: String, as subject: ActingSubject) async throws
    /// Removes an inactive binding; succeeds if there is none.
    func unbind(port id: String, host: String, as subject: ActingSubject) async throws
}

/// Volumes and their attachments, as Block Storage manages them, for the subject that its policy decides about.
package protocol VolumeClient: Sendable {
    /// - Returns: the volume's id.
    func createVolume(_ volume: JSONObject, as subject: ActingSubject, operation: String) async throws -> String
    /// Deletes a volume; succeeds if it does not exist.
    func deleteVolume(_ id: String, as subject: ActingSubject) async throws
    /// Reserves a volume for a server, and connects it to the server's host if it has one.
    func attach(_ attachment: VolumeAttachRequest) async throws -> VolumeAttachAnswer
    /// Connects an attachment to another host instead of its present one.
    ///
    /// - Returns: how the host connects to the volume.
    func connect(attachment: String, host: String, device: String, as subject: ActingSubject) async throws -> JSONValue
    /// Marks the attachment as in use by the guest.
    func complete(attachment: String, as subject: ActingSubject) async throws
    /// Removes an attachment; succeeds if it does not exist.
    func detach(attachment: String, as subject: ActingSubject) async throws
    /// Creates a snapshot of a volume. The snapshot of a volume in use waits for a copy that a host makes.
    ///
    /// - Returns: the snapshot's id.
    func createSnapshot(_ snapshot: JSONObject, as subject: ActingSubject, operation: String) async throws -> String
    /// Starts writing an image to a volume of a server whose guest is off.
    func reimage(_ volume: String, image: String, as subject: ActingSubject, operation: String) async throws
    /// Deletes a snapshot; succeeds if it does not exist.
    func deleteSnapshot(_ id: String, as subject: ActingSubject) async throws
    /// Reports whether a host's copy is complete. Has no effect on a snapshot that does not wait for a copy.
    func reportCopy(ofSnapshot id: String, isComplete: Bool, as subject: ActingSubject) async throws
}

/// Images, as Image manages them, for the subject that its policy decides about.
package protocol ImageClient: Sendable {
    /// Creates an image without data under the id in `image`. Repeating it with the same id is a success.
    func createImage(_ image: JSONObject, as subject: ActingSubject) async throws
    /// Uploads empty data to an image, so that it becomes active: its content is described by its properties. Repeating it is a success.
    func activateEmpty(_ id: String, as subject: ActingSubject) async throws
    /// Deletes an image; succeeds if it does not exist.
    func deleteImage(_ id: String, as subject: ActingSubject) async throws
    /// An image, as the Image service shows it.
    ///
    /// - Throws: 404 if the subject may not see it.
    func image(_ id: String, as subject: ActingSubject) async throws -> JSONObject
    /// A page of images, as the Image service shows them.
    func images(_ query: [(String, String)], as subject: ActingSubject) async throws -> ImagePage
    /// Changes an image by a JSON patch (RFC 6902).
    func changeImage(_ id: String, _ patch: [JSONValue], as subject: ActingSubject) async throws
    /// The public address of an image.
    func address(of id: String) async throws -> String
}

/// A page of Image's list.
package struct ImagePage: Sendable {
    package var images: [JSONObject]
    /// Whether there are more after the last of these.
    package var hasMore: Bool

    package init(images: [JSONObject], hasMore: Bool) {
        self.images = images
        self.hasMore = hasMore
    }
}

/// A request to attach a volume to a server. Repeating an `operation` has no further effect.
package struct VolumeAttachRequest: Sendable {
    package var volumeID: String
    package var serverID: String
    package var subject: ActingSubject
    /// Nil for a server without a host: the volume is reserved only.
    package var host: String?
    package var device: String
    package var operation: String
}

/// Block Storage's answer to a `VolumeAttachRequest`.
package struct VolumeAttachAnswer: Sendable {
    package var attachmentID: String
    /// How the host connects to the volume, as the agent's message has it. Nil if no host was given.
    package var connection: JSONValue?

    package init(attachmentID: String, connection: JSONValue?) {
        self.attachmentID = attachmentID
        self.connection = connection
    }
}

/// The services that Compute calls.
package struct ServiceClients: Sendable {
    package let scheduler: any SchedulerClient
    package let network: any NetworkClient
    package let volumes: any VolumeClient
    package let images: any ImageClient

    package init(
        scheduler: any SchedulerClient, network: any NetworkClient, volumes: any VolumeClient, images: any ImageClient
    ) {
        self.images = images
        self.scheduler = scheduler
        self.network = network
        self.volumes = volumes
    }

    /// Clients of the services themselves, over REST and AMQP.
    package init(client: RESTClient, bus: any MessageBus) {
        self.init(
            scheduler: RemoteScheduler(client: client, bus: bus), network: RemoteNetwork(client: client),
            volumes: RemoteVolumes(client: client), images: RemoteImages(client: client))
    }
}

struct RemoteScheduler: SchedulerClient {
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

    func move(_ move: AllocationMove) async throws {
        let from = try await client.get(.placement, "/allocations/\(move.from)", microversion: "1.38")
        let held = from["allocations"]?.objectValue ?? [:]
        guard !held.isEmpty else { return }
        let to = try await client.get(.placement, "/allocations/\(move.to)", microversion: "1.38")
        let resources = JSONObject(held.members.map { ($0.name, ["resources": $0.value["resources"] ?? [:]] as JSONValue) })
        func change(_ allocations: JSONObject, _ now: JSONValue, _ type: String) -> JSONValue {
            [
                "allocations": .object(allocations), "consumer_generation": now["consumer_generation"] ?? .null,
                "project_id": .string(move.project), "user_id": .string(move.user), "consumer_type": .string(type),
            ]
        }
        try await client.post(
            .placement, "/allocations",
            .object([move.from: change([:], from, move.fromType), move.to: change(resources, to, move.toType)]), microversion: "1.38")
    }
}

struct RemoteNetwork: NetworkClient {
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

    func bind(port id: String, host: String, as subject: ActingSubject) async throws {
        let client = client.acting(for: subject)
        do {
            try await client.post(.network, "/ports/\(id)/bindings", ["binding": ["host": .string(host)]])
        } catch let error as ResourceError where error.code == .conflict {
            // An earlier attempt may have bound it; a port that is bound to no host is refused too.
            let bindings = try await client.get(.network, "/ports/\(id)/bindings")["bindings"]?.arrayValue ?? []
            guard bindings.contains(where: { $0["host"]?.stringValue == host }) else { throw error }
        }
    }

    func activateBinding(port id: String, host: String, as subject: ActingSubject) async throws {
        do {
            try await client.acting(for: subject).put(.network, "/ports/\(id)/bindings/\(host)/activate", [:])
        } catch let error as ResourceError where error.code == .conflict {
            // The binding is already active.
        } catch let error as ResourceError where error.code == .notFound {
            try await updatePort(id, ["binding:host_id": .string(host)], as: subject)
        }
    }

    func unbind(port id: String, host: String, as subject: ActingSubject) async throws {
        try await client.acting(for: subject).delete(.network, "/ports/\(id)/bindings/\(host)", missingIsFine: true)
    }
}

struct RemoteVolumes: VolumeClient {
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
        let connector = request.host.map { host -> JSONValue in
            ["host": .string(host), "mountpoint": .string(request.device), "multipath": false]
        }
        let answer = try await client.acting(for: request.subject).post(
            .blockStorage, "/v3/\(request.subject.project)/attachments",
            [
                "attachment": [
                    "volume_uuid": .string(request.volumeID), "instance_uuid": .string(request.serverID),
                    "connector": connector ?? .null,
                ]
            ], microversion: "latest", idempotencyKey: request.operation)
        guard let attachment = answer["attachment"], let id = attachment["id"]?.stringValue else {
            throw ResourceError.unavailable("Block Storage answered an attachment without an id")
        }
        guard request.host != nil else { return VolumeAttachAnswer(attachmentID: id, connection: nil) }
        guard let connection = attachment["connection_info"], connection["driver"]?.stringValue != nil else {
            throw ResourceError.unavailable("Block Storage answered an attachment without a connection")
        }
        return VolumeAttachAnswer(attachmentID: id, connection: connection)
    }

    func connect(attachment: String, host: String, device: String, as subject: ActingSubject) async throws -> JSONValue {
        let answer = try await client.acting(for: subject).put(
            .blockStorage, "/v3/\(subject.project)/attachments/\(attachment)",
            ["attachment": ["connector": ["host": .string(host), "mountpoint": .string(device), "multipath": false]]],
            microversion: "latest")
        guard let connection = answer["attachment"]?["connection_info"], connection["driver"]?.stringValue != nil else {
            throw ResourceError.unavailable("Block Storage answered an attachment without a connection")
        }
        return connection
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

extension RemoteVolumes {
    func createSnapshot(_ snapshot: JSONObject, as subject: ActingSubject, operation: String) async throws -> String {
        let answer = try await client.acting(for: subject).post(
            .blockStorage, "/v3/\(subject.project)/snapshots", ["snapshot": .object(snapshot)], idempotencyKey: operation)
        guard let id = answer["snapshot"]?["id"]?.stringValue else {
            throw ResourceError.unavailable("Block Storage answered a snapshot without an id")
        }
        return id
    }

    func reimage(_ volume: String, image: String, as subject: ActingSubject, operation: String) async throws {
        try await client.acting(for: subject).post(
            .blockStorage, "/v3/\(subject.project)/volumes/\(volume)/action",
            ["os-reimage": ["image_id": .string(image), "reimage_reserved": true]], microversion: "3.68", idempotencyKey: operation)
    }

    func deleteSnapshot(_ id: String, as subject: ActingSubject) async throws {
        try await client.acting(for: subject).delete(.blockStorage, "/v3/\(subject.project)/snapshots/\(id)", missingIsFine: true)
    }

    func reportCopy(ofSnapshot id: String, isComplete: Bool, as subject: ActingSubject) async throws {
        let status = isComplete ? "available" : "error"
        do {
            try await client.acting(for: subject).post(
                .blockStorage, "/v3/\(subject.project)/snapshots/\(id)/action",
                ["os-update_snapshot_status": ["status": .string(status), "progress": isComplete ? "100%" : "0%"]],
                idempotencyKey: "copied:\(id):\(status)")
        } catch let error as ResourceError where [.notFound, .badRequest].contains(error.code) {
            // It was deleted, or was reported before.
        }
    }
}

struct RemoteImages: ImageClient {
    let client: RESTClient

    func createImage(_ image: JSONObject, as subject: ActingSubject) async throws {
        let client = client.acting(for: subject)
        do { try await client.post(.image, "/images", .object(image)) } catch let error as ResourceError where error.code == .conflict {
            // The id is the workflow's own: an earlier attempt has created the image.
            _ = try await client.get(.image, "/images/\(image["id"]?.stringValue ?? "")")
        }
    }

    func deleteImage(_ id: String, as subject: ActingSubject) async throws {
        try await client.acting(for: subject).delete(.image, "/images/\(id)", missingIsFine: true)
    }

    func image(_ id: String, as subject: ActingSubject) async throws -> JSONObject {
        try await client.acting(for: subject).get(.image, "/images/\(id)").objectValue ?? [:]
    }

    func images(_ query: [(String, String)], as subject: ActingSubject) async throws -> ImagePage {
        let answer = try await client.acting(for: subject).get(.image, "/images", query: query)
        return ImagePage(
            images: (answer["images"]?.arrayValue ?? []).compactMap(\.objectValue), hasMore: answer["next"]?.stringValue != nil)
    }

    func changeImage(_ id: String, _ patch: [JSONValue], as subject: ActingSubject) async throws {
        _ = try await client.acting(for: subject).request(
            service: .image, method: .patch, path: "/images/\(id)",
            headers: [("content-type", "application/openstack-images-v2.1-json-patch")], body: .array(patch))
    }

    func activateEmpty(_ id: String, as subject: ActingSubject) async throws {
        let client = client.acting(for: subject)
        do {
            _ = try await client.request(
                service: .image, method: .put, path: "/images/\(id)/file", headers: [("content-type", "application/octet-stream")])
        } catch let error as ResourceError where error.code == .conflict {
            guard try await client.get(.image, "/images/\(id)")["status"]?.stringValue == "active" else { throw error }
        }
    }

    func address(of id: String) async throws -> String { try await client.endpoint(.image) + "/images/\(id)" }
}
