import Commands
import Glibc
import Kernel
import Libvirt
import Testing

@testable import ComputeAgentService

/// Tenants see what failed, but not where or with what output.
@Suite struct FailureMessageTests {
    @Test func s17_messagesForTenantsNameNoPathsOrTools() {
        let secret = "/var/lib/wolke/agent/servers/x"
        let errors: [any Error] = [
            PermanentFailure("the hypervisor refuses the server's definition", details: "cannot open \(secret)"),
            FileError(operation: "write", path: secret, number: ENOSPC), FileError(operation: "write", path: secret, number: EACCES),
            CommandError(arguments: ["qemu-img", secret], status: 1, output: "qemu-img: \(secret): No space left on device"),
            CommandError(arguments: ["ip", secret], status: 1, output: "RTNETLINK: \(secret)"),
            LibvirtError(code: 1, domain: 1, message: "cannot access \(secret)", call: "start"),
            ResourceError.unavailable("10.0.0.1 refused \(secret)"),
        ]
        let messages = errors.map { FailureMessage.message($0, during: "starting it") }
        #expect(
            messages == [
                "the hypervisor refuses the server's definition", "its host lacks disk space for the server's disks",
                "an error on its host while starting it", "its host lacks disk space for the server's disks",
                "an error on its host while starting it", "an error on its host while starting it",
                "an error on its host while starting it",
            ])
        // Operators see everything.
        #expect("\(errors[0])" == "the hypervisor refuses the server's definition: cannot open \(secret)")
    }
}
