import Commands
package import ComputeAgentCore
package import Kernel
import Libvirt
package import Logging

/// Finds out how guests can be virtualised here, by running one.
package struct VirtTypeProbe: Sendable {
    private let runner: CommandRunner
    private let threads: WorkerThreads
    private let emulator: String
    private let directory: String
    private let log: Logger

    package init(runner: CommandRunner, threads: WorkerThreads, emulator: String, directory: String, log: Logger) {
        self.runner = runner
        self.threads = threads
        self.emulator = emulator
        self.directory = directory
        self.log = log
    }

    /// - Throws: `CommandError` if there is no QEMU.
    package func detect() async throws -> VirtType {
        guard Files.exists("/dev/kvm") else {
            log.notice("guests are emulated: /dev/kvm does not exist")
            return .qemu
        }
        let rom = directory + "/kvm-probe.rom"
        try await threads.run { try Files.replace(rom, with: KVMProbe.rom) }
        let outcome = try await runner.outcome(
            [emulator] + KVMProbe.arguments(accelerator: "kvm", cpu: "host", romPath: rom), timeout: KVMProbe.deadline)
        try await threads.run { try Files.remove(rom) }
        guard outcome.status == KVMProbe.expectedExitCode else {
            let ending =
                outcome.status.map { "QEMU ended with status \($0)" }
                ?? "QEMU was ended by a signal or gave no answer within \(KVMProbe.deadline)"
            log.notice(
                "guests are translated: there is a /dev/kvm, but it does not run a guest",
                metadata: ["ending": "\(ending)", "output": "\(outcome.output.prefix(300))"])
            return .qemu
        }
        log.notice("guests use KVM: the probe succeeded")
        return .kvm
    }
}
