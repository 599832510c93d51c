import Commands
import Contracts
import DiskTool
import FileTransfer
import Kernel
import NIOCore

@testable import ComputeAgentCore
@testable import ComputeAgentService
@testable import Libvirt

struct NoImages: ImageSource {
    func download(_ imageID: String, as subject: ActingSubject, _ receive: @escaping @Sendable (ByteBuffer) async throws -> Void)
        async throws
    {
        throw ResourceError.unavailable("there are no images")
    }
}

struct NoDisks: DiskMaker {
    func create(_ path: String, size: Int, backing: DiskSource?) throws {}
    func grow(_ path: String, to size: Int) throws {}
    func copy(_ layers: [DiskSource], to path: String, _ format: DiskDriver, size: Int, _ cancellation: CopyCancellation) throws {}
    func makeISO(of tree: String, into file: String, sizes: [Int]) throws {}
    func resize(_ disk: DiskSource, to size: Int, shrinks: Bool) throws {}
    func hasVolume(_ path: String) -> Bool { true }
}

/// A hypervisor that has no domains and does nothing, except for what a test adds.
protocol QuietHypervisor: HypervisorDriver {}

extension QuietHypervisor {
    func baselineProcessor(emulator: String, machine: String, type: String, definitions: [String]) async throws -> String { "" }
    func domains() async throws -> [DomainSummary] { [] }
    func xml(_ uuid: String, inactive: Bool) async throws -> String { try await movableXML(uuid) }
    func domain(_ uuid: String) async throws -> DomainSummary? { nil }
    func movableXML(_ uuid: String) async throws -> String { "<domain><devices/></domain>" }
    func move(_ uuid: String, _ order: DomainMove) async throws {}
    func moveState(_ uuid: String) async throws -> DomainMoveState? { nil }
    func abortMove(_ uuid: String) async throws {}
    func define(xml: String) async throws {}
    func start(_ uuid: String, paused: Bool) async throws {}
    func destroy(_ uuid: String) async throws {}
    func shutdown(_ uuid: String, by method: ShutdownMethod) async throws {}
    func suspend(_ uuid: String) async throws {}
    func resume(_ uuid: String) async throws {}
    func managedSave(_ uuid: String) async throws {}
    func discardManagedSave(_ uuid: String) async throws {}
    func undefine(_ uuid: String) async throws {}
    func attach(_ uuid: String, device xml: String, to scope: DeviceScope) async throws {}
    func detach(_ uuid: String, device xml: String, from scope: DeviceScope) async throws {}
    func openDisplay(_ uuid: String) async throws -> Int32 { throw LibvirtError.invalidState(call: "display") }
    func beginBackup(_ uuid: String, xml: String) async throws {}
    func backupState(_ uuid: String) async throws -> DomainBackupState { .none }
    func abortBackup(_ uuid: String) async throws {}
    func beginBlockCopy(_ uuid: String, disk: String, xml: String) async throws {}
    func blockCopyState(_ uuid: String, disk: String) async throws -> DomainBlockCopyState? { nil }
    func endBlockCopy(_ uuid: String, disk: String, pivots: Bool) async throws {}
    func diskSize(_ uuid: String, disk: String) async throws -> Int { 0 }
    func resizeDisk(_ uuid: String, disk: String, bytes: Int) async throws {}
    func freeze(_ uuid: String, seconds: Int) async throws {}
    func thaw(_ uuid: String, seconds: Int) async throws {}
    func beginPostCopy(_ uuid: String) async throws {}
    func statistics(_ uuid: String) async throws -> [String: DomainStatistic] { [:] }
    func injectNMI(_ uuid: String) async throws {}
    func setPassword(_ uuid: String, user: String, password: String) async throws {}
}
