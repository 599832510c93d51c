import Contracts
import JSON
import TestKit

/// One message of every type, with every member.
enum Samples {
    static let id = "11111111-1111-4111-8111-111111111111"
    static let other = "22222222-2222-4222-8222-222222222222"

    /// By type and version; answers by their question.
    static func all() throws -> [String: MessageSample] {
        var samples: [String: MessageSample] = [:]
        for (key, body) in try messages() { samples[key] = try sample(body) }
        samples["ensure@1 server"] = try MessageSample(answer: try server())
        for kind in ServerSpec.Operation.Kind.known {
            samples["ensure@1 operation \(kind)"] = try MessageSample(
                answer: ServerSpec.Operation(id: other, kind: kind, preservesEphemeral: true))
        }
        samples["ensure@1 volume of an NBD server"] = try MessageSample(answer: nbdVolume)
        for power in ReportedPower.known {
            samples["heartbeat@1 server \(power)"] = try MessageSample(
                answer: HeldServer(serverID: id, generation: 3, epoch: 2, power: power, metadataReady: true, progress: 7))
        }
        samples["console_log@1 answer"] = try MessageSample(answer: ConsoleLogQuestion.Answer(output: "login:"))
        let uptime = HostUptimeQuestion.Answer(uptime: 3600, loadAverages: [1.5, 0.5, 0.25])
        samples["host_uptime@1 answer"] = try MessageSample(answer: uptime)
        samples["processors@1 answer"] = try MessageSample(answer: ProcessorsQuestion.Answer(processors: [2, 3]))
        samples["crash_dump@1 answer"] = try MessageSample(answer: Done())
        samples["set_password@1 answer"] = try MessageSample(answer: Done())
        samples["schedule@1 answer"] = try MessageSample(answer: answer)
        samples["schedule@1 answer of several"] = try MessageSample(
            answer: ScheduleTrial.Answer(
                answers: [answer],
                capacity: .init(
                    before: .init(hosts: 2, resources: ["VCPU": .init(capacity: 8, free: 4)]),
                    after: .init(hosts: 1, resources: ["VCPU": .init(capacity: 4, free: 0)]))))
        return samples
    }

    private static func sample<Body: MessageBody>(_ body: Body) throws -> MessageSample { try MessageSample(body) }

    private static func messages() throws -> [String: any MessageBody] {
        [
            "hello@1": AgentHello(host: "host-1", agentVersion: "1", capabilities: capabilities),
            "heartbeat@1": AgentHeartbeat(
                host: "host-1", agentVersion: "1", freeMemoryMiB: 1024, freeDiskGiB: 20, servers: [held]),
            "observed@1": observed,
            "ports_changed@1": PortsChanged(servers: [id, "not-a-server"]),
            "ensure@1": EnsureServer(server: try Enclosed(try server())),
            "sync@1": SyncServers(host: "host-1", servers: [try Enclosed(try server())]),
            "console_log@1": ConsoleLogQuestion(serverID: id, lines: 20),
            "connect_console@1": ConsoleConnection(serverID: id, kind: .vnc, address: "192.0.2.1:6080", secret: "c2VjcmV0"),
            "diagnostics@1": DiagnosticsQuestion(serverID: id, ofHypervisor: true), "host_uptime@1": HostUptimeQuestion(),
            "cache_images@1": CacheImages(
                projectID: "project", userID: "user",
                images: [
                    .init(
                        id: other, checksum: "abc", hashAlgorithm: "sha512", contentHash: "def", diskFormat: "qcow2", size: 1000,
                        minDiskGiB: 1, diskGiB: 2, properties: ["hw_disk_bus": "virtio"],
                        administrator: .init(project: "admins", user: "root"), isCopied: true)
                ]),
            "processors@1": ProcessorsQuestion(serverID: id),
            "crash_dump@1": CrashDumpQuestion(serverID: id),
            "set_password@1": SetPasswordQuestion(serverID: id, user: "root", password: "secret"),
            "guest_password@1": GuestPassword(host: "host-1", serverID: id, password: "c2VjcmV0"),
            "host@1": HostChanged(
                host: "host-1", providerID: id,
                inventories: [
                    "VCPU": .init(total: 4, reserved: 1, minUnit: 1, maxUnit: 4, stepSize: 1, allocationRatio: 4.5)
                ], traits: ["COMPUTE_NODE"], enabled: true, forcedDown: false),
            "host_removed@1": HostRemoved(host: "host-1", providerID: id),
            "schedule@1": question,
            "schedule@1 of several": ScheduleTrial(together: true, excludedHosts: ["host-2"], requests: [question]),
        ]
    }

    static let question: ScheduleServer = {
        var question = plainQuestion
        question.isHardwareChecked = true
        return question
    }()

    private static let plainQuestion = ScheduleServer(
        operationID: other, consumerID: id, projectID: "project", userID: "user", zone: "nova", host: "host-1",
        resources: ["VCPU": 1, "MEMORY_MB": 512, "DISK_GB": 1], requiredTraits: ["COMPUTE_NODE"], forbiddenTraits: ["CUSTOM_OLD"],
        flavorExtraSpecs: ["trait:COMPUTE_NODE": "required"], imageProperties: ["hw_architecture": "x86_64"],
        aggregateMetadata: ["ssd": "true"],
        group: .init(id: other, policy: "anti-affinity", rules: ["max_server_per_host": 2], members: [other]), sameHost: [other],
        differentHost: [id], excludedHosts: ["host-3"], dryRun: true)

    static let answer = SchedulingAnswer(
        .rejected, host: "host-1", providerID: id, alternatives: 2, fits: 3, dryRun: true, message: "No valid host was found.",
        filters: [.init(name: "ComputeFilter", hostsBefore: 3, hostsAfter: 2, reasons: ["not in service": 1])],
        nearest: .init(
            resources: ["VCPU": 1], zones: ["nova": 2], without: ["TraitsFilter"], flavors: [.init(id: "1", name: "m1.tiny", fits: 2)]),
        refusals: [.init(host: "host-2", filter: "ComputeFilter", reason: "disabled")])

    static func server() throws -> ServerSpec {
        let fixed = ServerSpec.PortAddress(address: "192.0.2.5", subnetID: other, cidr: "192.0.2.0/24", gateway: "192.0.2.1")
        return ServerSpec(
            id: id, name: "web", projectID: "project", userID: "user", generation: 3, epoch: 2, power: .running,
            operation: .init(id: other, kind: .rebuild, preservesEphemeral: true), vcpus: 2, memoryMiB: 512, rootGiB: 3, ephemeralGiB: 1,
            swapMiB: 64,
            extraSpecs: ["flavor_name": "m1.tiny"],
            image: .init(
                id: other, checksum: "abc", hashAlgorithm: "sha512", contentHash: "def", diskFormat: "qcow2", size: 1000, minDiskGiB: 1,
                diskGiB: 2, properties: ["hw_disk_bus": "virtio"], administrator: .init(project: "admins", user: "root"), isCopied: true),
            imageProperties: ["hw_disk_bus": "virtio"],
            rescue: .init(
                image: .init(
                    id: other, checksum: "abc", hashAlgorithm: "sha512", contentHash: "def", diskFormat: "raw", size: 1000, minDiskGiB: 1,
                    diskGiB: 2, properties: ["hw_rescue_bus": "usb"], administrator: .init(project: "admins", user: "root"), isCopied: true),
                isStable: true, device: "cdrom", bus: "usb"),
            keepsDisks: true,
            volumes: [
                .init(
                    id: other, attachmentID: id, device: "vdb", bootIndex: 1,
                    connection: Enclosed(document: ["driver": "file", "path": "/volumes/1", "format": "raw", "read_only": false]),
                    sizeGiB: 5)
            ],
            ports: [
                .init(
                    id: id, networkID: other, mac: "fa:16:3e:00:00:01", mtu: 1442, fixedIPs: [fixed],
                    metadataPort: .init(id: other, mac: "fa:16:3e:00:00:02", fixedIPs: [fixed]), tag: "front", isSecured: false)
            ],
            metadata: ["uuid": .string(id), "launch_index": 0], networkData: ["links": []], userData: "IyEvYmluL3NoCg==",
            files: [.init(path: "/etc/motd", contents: "aGkK")], configDrive: true, hostname: "web",
            guestPassword: "c2VjcmV0",
            jobs: [job],
            floatingIPs: ["203.0.113.7"], securityGroups: ["default"], isHardwareChecked: true,
            diskSources: [
                .init(
                    disk: .ephemeral,
                    image: .init(
                        id: other, checksum: "abc", hashAlgorithm: "sha512", contentHash: "def", diskFormat: "qcow2", size: 1000,
                        minDiskGiB: 1, diskGiB: 2, properties: [:], administrator: .init(project: "admins", user: "root"),
                        isCopied: true))
            ], processorDefinitions: ["<cpu/>"])
    }

    static let nbdVolume = ServerSpec.Volume(
        id: other, attachmentID: id, device: "vdb", bootIndex: 0,
        connection: Enclosed(
            document: ["driver": "nbd", "host": "192.0.2.3", "port": 10809, "export": "volume-1", "format": "raw", "read_only": true]),
        sizeGiB: 5)

    private static let endpoint = MigrationEndpoint(
        uri: "qemu+tls://host-2/system", address: "192.0.2.2", directory: "/servers/1", backing: "/images/1", emulator: "/usr/bin/qemu",
        vncListen: "127.0.0.1")

    /// One with the members of all kinds.
    private static let job: ServerJob = {
        var job = ServerJob(id: other, upload: .init(imageID: id, projectID: "project", userID: "user", quiesce: .ifPossible, disk: .root))
        var migration = ServerJob.Migration(
            endpoint: endpoint,
            volumes: [
                ServerSpec.Volume(
                    id: other, attachmentID: id, device: "vdb", bootIndex: 1,
                    connection: Enclosed(document: ["driver": "file", "path": "/volumes/1", "format": "raw", "read_only": false]),
                    sizeGiB: 5)
            ])
        (migration.completes, migration.isCancelled) = (true, false)
        job.copies = .init(volumes: [.init(id: other, path: "/volumes/snapshot-1.part", format: "raw", sizeGiB: 2)], quiesce: .required)
        job.migration = migration
        job.swap = .init(volumeID: id, replacement: nbdVolume, sizeGiB: 3)
        job.swap?.completes = true
        return job
    }()

    private static let report: ServerJobReport = {
        var report = ServerJobReport(
            id: other, state: .failed, phase: "uploading", progress: 40, error: "connection refused", reason: "Image does not answer")
        report.migration = MigrationProgress(
            memory: .init(total: 100, processed: 60, remaining: 40), disk: .init(total: 10, processed: 3, remaining: 7))
        return report
    }()

    static let observed = ObservedReport(
        host: "host-1", serverID: id, generation: 3, epoch: 2, power: .running, state: .failed, error: "no such machine type",
        reason: "the machine type is not available", permanent: true, metadataReady: true, operationID: other, unknown: false,
        jobs: [report], endpoint: endpoint)

    static var held: HeldServer {
        var held = HeldServer(observed)
        held.progress = 7
        return held
    }

    static let capabilities = HostCapabilities(
        cpus: 4, memoryMiB: 8192, diskGiB: 100, virtType: "kvm", hypervisorType: "QEMU", hypervisorVersion: 7_002_000,
        reserved: .init(vcpu: 1, memoryMiB: 512, diskGiB: 5), allocationRatios: .init(vcpu: 4.5, memoryMiB: 1.5, diskGiB: 1.25),
        processor: .init(
            arch: "x86_64", model: "Skylake", vendor: "Intel", features: ["aes"], topology: .init(sockets: 1, cores: 2, threads: 2)),
        traits: ["COMPUTE_NODE"], hostIP: "192.0.2.1", sandboxProblem: "no bwrap", datapathType: "netdev",
        switchOutages: ["count": 1], release: "0.2.0", dedicatedCPUs: 2, processorDefinition: "<cpu/>",
        physicalNetworks: ["physnet1"])
}
