import CLibvirt
import Glibc

extension Hypervisor {
    /// The machine's processors and memory.
    package func nodeInfo() async throws -> NodeInfo {
        try await call("virNodeGetInfo") { connection in
            var info = virNodeInfo()
            guard virNodeGetInfo(connection, &info) == 0 else { throw LibvirtError.last("virNodeGetInfo") }
            let model = withUnsafeBytes(of: info.model) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
            return NodeInfo(
                architecture: model, memoryMiB: Int(info.memory / 1024), cpus: Int(info.cpus), mhz: Int(info.mhz),
                numaNodes: Int(info.nodes), sockets: Int(info.sockets), cores: Int(info.cores),
                threads: Int(info.threads))
        }
    }

    /// libvirt's XML description of the host and its capabilities. It includes KVM wherever `/dev/kvm` exists.
    package func capabilities() async throws -> String {
        try await call("virConnectGetCapabilities") { connection in
            guard let text = takeText(virConnectGetCapabilities(connection)) else {
                throw LibvirtError.last("virConnectGetCapabilities")
            }
            return text
        }
    }

    /// libvirt's XML description of what a domain with this machine type can have.
    ///
    /// - Parameters:
    ///   - emulator: the path of QEMU.
    ///   - machine: `pc` or `q35`.
    ///   - type: `kvm` or `qemu`.
    package func domainCapabilities(emulator: String, machine: String, type: String) async throws -> String {
        try await call("virConnectGetDomainCapabilities") { connection in
            guard let text = takeText(virConnectGetDomainCapabilities(connection, emulator, "x86_64", machine, type, 0)) else {
                throw LibvirtError.last("virConnectGetDomainCapabilities")
            }
            return text
        }
    }

    /// The processor model and features that all of the given processors have, as a `<cpu>` element.
    ///
    /// - Parameters:
    ///   - emulator: the path of QEMU.
    ///   - machine: `pc` or `q35`.
    ///   - type: `kvm` or `qemu`.
    ///   - definitions: `<cpu>` elements of hosts, at least one.
    /// - Throws: `LibvirtError`, also if the processors have no model in common.
    package func baselineProcessor(emulator: String, machine: String, type: String, definitions: [String]) async throws -> String {
        try await call("virConnectBaselineHypervisorCPU") { connection in
            let texts = definitions.map { strdup($0) }
            defer { for text in texts { free(text) } }
            var pointers = texts.map { UnsafePointer($0) }
            let found = virConnectBaselineHypervisorCPU(
                connection, emulator, "x86_64", machine, type, &pointers, UInt32(pointers.count), 0)
            guard let text = takeText(found) else { throw LibvirtError.last("virConnectBaselineHypervisorCPU") }
            return text
        }
    }

    /// The hypervisor's version as `major * 1 000 000 + minor * 1000 + micro`.
    package func hypervisorVersion() async throws -> Int {
        try await call("virConnectGetVersion") { connection in
            var version: CUnsignedLong = 0
            guard virConnectGetVersion(connection, &version) == 0 else {
                throw LibvirtError.last("virConnectGetVersion")
            }
            return Int(version)
        }
    }

    /// libvirtd's version in the same form.
    package func libraryVersion() async throws -> Int {
        try await call("virConnectGetLibVersion") { connection in
            var version: CUnsignedLong = 0
            guard virConnectGetLibVersion(connection, &version) == 0 else {
                throw LibvirtError.last("virConnectGetLibVersion")
            }
            return Int(version)
        }
    }

    /// Free memory in MiB.
    package func freeMemoryMiB() async throws -> Int {
        try await call("virNodeGetFreeMemory") { connection in
            let bytes = virNodeGetFreeMemory(connection)
            guard bytes > 0 else { throw LibvirtError.last("virNodeGetFreeMemory") }
            return Int(bytes / (1024 * 1024))
        }
    }
}
