import JSON

// What agents, and Network for the ports of their servers, put into `MessageQueue.computeAgents`.

/// The first word of an agent: who it is and what its host offers. Compute answers with `SyncServers`.
package struct AgentHello: MessageBody, Hashable {
    package static let type = "hello"

    package var host: String
    /// The agent's own; of no meaning to the plane.
    package var agentVersion: String?
    package var capabilities: HostCapabilities

    private enum CodingKeys: String, CodingKey {
        case host, capabilities
        case agentVersion = "version"
    }

    package init(host: String, agentVersion: String?, capabilities: HostCapabilities) {
        self.host = host
        self.agentVersion = agentVersion
        self.capabilities = capabilities
    }
}

/// A sign of life.
package struct AgentHeartbeat: MessageBody, Hashable {
    package static let type = "heartbeat"

    package var host: String
    package var agentVersion: String?
    package var freeMemoryMiB: Int?
    package var freeDiskGiB: Int?
    /// All servers on the host, in some of the heartbeats; Compute sends the desired state again where it knows something else.
    /// Nil in the others, and from agents before 0.2.0.
    package var servers: [HeldServer]?

    private enum CodingKeys: String, CodingKey {
        case host, servers
        case agentVersion = "version"
        case freeMemoryMiB = "free_memory_mb"
        case freeDiskGiB = "free_disk_gb"
    }

    package init(
        host: String, agentVersion: String?, freeMemoryMiB: Int? = nil, freeDiskGiB: Int? = nil, servers: [HeldServer]? = nil
    ) {
        self.servers = servers
        self.host = host
        self.agentVersion = agentVersion
        self.freeMemoryMiB = freeMemoryMiB
        self.freeDiskGiB = freeDiskGiB
    }
}

/// A server on a host, with the part of the agent's last report that Compute compares with its record.
package struct HeldServer: Codable, Sendable, Hashable {
    package var serverID: String
    package var generation: Int
    /// Nil while this process of the agent has not reported the server.
    package var power: String?
    package var state: ObservedReport.State
    package var metadataReady: Bool
    /// A domain on this host that the plane did not order.
    package var unknown: Bool

    private enum CodingKeys: String, CodingKey {
        case generation, state, unknown
        case serverID = "server_id"
        case power = "power_state"
        case metadataReady = "metadata_ready"
    }

    package init(
        serverID: String, generation: Int = 0, power: String? = nil, state: ObservedReport.State = .applied,
        metadataReady: Bool = false, unknown: Bool = false
    ) {
        self.serverID = serverID
        self.generation = generation
        self.power = power
        self.state = state
        self.metadataReady = metadataReady
        self.unknown = unknown
    }

    package init(_ report: ObservedReport) {
        self.init(
            serverID: report.serverID, generation: report.generation, power: report.power, state: report.state,
            metadataReady: report.metadataReady, unknown: report.unknown)
    }
}

/// A server as its agent found or left it.
package struct ObservedReport: MessageBody, Hashable {
    package static let type = "observed"

    /// Whether the generation is in effect.
    package enum State: String, Codable, Sendable { case applied, failed }

    package var host: String
    package var serverID: String
    package var generation: Int
    package var epoch: Int
    /// `running`, `shutoff`, `paused`, `suspended`, `crashed` or `absent`; another word is shown as an error of the server.
    package var power: String
    package var state: State
    /// For operators.
    package var error: String?
    /// What the error means for the server's owner: without names of files, hosts or tools.
    package var reason: String?
    /// Trying the same again cannot help.
    package var permanent: Bool
    package var metadataReady: Bool
    /// The one-time operation that was done last.
    package var operationID: String?
    /// A domain on this host that the plane did not order.
    package var unknown: Bool

    private enum CodingKeys: String, CodingKey {
        case host, generation, epoch, state, error, reason, permanent, unknown
        case serverID = "server_id"
        case power = "power_state"
        case metadataReady = "metadata_ready"
        case operationID = "operation_id"
    }

    package init(
        host: String, serverID: String, generation: Int, epoch: Int, power: String, state: State = .applied,
        error: String? = nil, reason: String? = nil, permanent: Bool = false, metadataReady: Bool = false, operationID: String? = nil,
        unknown: Bool = false
    ) {
        self.host = host
        self.serverID = serverID
        self.generation = generation
        self.epoch = epoch
        self.power = power
        self.state = state
        self.error = error
        self.reason = reason
        self.permanent = permanent
        self.metadataReady = metadataReady
        self.operationID = operationID
        self.unknown = unknown
    }
}

/// Ports of servers have changed in a way that their hosts must hear of. Network sends it.
package struct PortsChanged: MessageBody, Hashable {
    package static let type = "ports_changed"

    /// The devices of the ports. Tenants can write them, so they need not be ids of servers.
    package var servers: [String]

    package init(servers: [String]) { self.servers = servers }
}

/// What a host offers. Compute keeps it as `hypervisors.capabilities`, where Network and osctl read members by name.
package struct HostCapabilities: Codable, Sendable, Hashable {
    /// By resource class.
    package struct Amounts<Number: Codable & Sendable & Hashable>: Codable, Sendable, Hashable {
        package var vcpu: Number
        package var memoryMiB: Number
        package var diskGiB: Number

        private enum CodingKeys: String, CodingKey {
            case vcpu = "VCPU"
            case memoryMiB = "MEMORY_MB"
            case diskGiB = "DISK_GB"
        }

        package init(vcpu: Number, memoryMiB: Number, diskGiB: Number) {
            self.vcpu = vcpu
            self.memoryMiB = memoryMiB
            self.diskGiB = diskGiB
        }
    }

    /// The processor, in the form of Compute's API.
    package struct Processor: Codable, Sendable, Hashable {
        package struct Topology: Codable, Sendable, Hashable {
            package var sockets: Int
            package var cores: Int
            package var threads: Int

            package init(sockets: Int, cores: Int, threads: Int) {
                self.sockets = sockets
                self.cores = cores
                self.threads = threads
            }
        }

        package var arch: String
        package var model: String
        package var vendor: String
        package var features: [String]
        package var topology: Topology

        package init(arch: String, model: String, vendor: String, features: [String], topology: Topology) {
            self.arch = arch
            self.model = model
            self.vendor = vendor
            self.features = features
            self.topology = topology
        }
    }

    package var cpus: Int
    package var memoryMiB: Int
    /// Size of the file system that holds the servers' disks.
    package var diskGiB: Int
    /// `kvm` or `qemu`.
    package var virtType: String
    package var hypervisorType: String
    /// `major * 1 000 000 + minor * 1000 + micro`.
    package var hypervisorVersion: Int
    /// What is not for servers.
    package var reserved: Amounts<Int>
    /// Promised amounts per real one.
    package var allocationRatios: Amounts<Double>
    package var processor: Processor
    package var traits: [String]
    package var hostIP: String?
    /// Why tools that read images cannot run in their sandbox. Release 0.1.0 does not say.
    package var sandboxProblem: String?
    /// Of Open vSwitch's bridge. Release 0.1.0 does not say.
    package var datapathType: String?
    /// Interruptions of the host's switch. Release 0.1.0 does not say.
    package var switchOutages: JSONValue?
    /// Of the agent. Release 0.1.0 does not say.
    package var release: String?

    private enum CodingKeys: String, CodingKey {
        case reserved, traits, release
        case cpus = "cpu"
        case memoryMiB = "memory_mb"
        case diskGiB = "disk_gb"
        case virtType = "virt_type"
        case hypervisorType = "hypervisor_type"
        case hypervisorVersion = "hypervisor_version"
        case allocationRatios = "allocation_ratios"
        case processor = "cpu_info"
        case hostIP = "host_ip"
        case sandboxProblem = "sandbox_problem"
        case datapathType = "datapath_type"
        case switchOutages = "switch"
    }

    package init(
        cpus: Int, memoryMiB: Int, diskGiB: Int, virtType: String, hypervisorType: String, hypervisorVersion: Int,
        reserved: Amounts<Int>, allocationRatios: Amounts<Double>, processor: Processor, traits: [String], hostIP: String? = nil,
        sandboxProblem: String? = nil, datapathType: String? = nil, switchOutages: JSONValue? = nil, release: String? = nil
    ) {
        self.cpus = cpus
        self.memoryMiB = memoryMiB
        self.diskGiB = diskGiB
        self.virtType = virtType
        self.hypervisorType = hypervisorType
        self.hypervisorVersion = hypervisorVersion
        self.reserved = reserved
        self.allocationRatios = allocationRatios
        self.processor = processor
        self.traits = traits
        self.hostIP = hostIP
        self.sandboxProblem = sandboxProblem
        self.datapathType = datapathType
        self.switchOutages = switchOutages
        self.release = release
    }
}
