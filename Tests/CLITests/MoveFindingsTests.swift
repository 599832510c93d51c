import Contracts
import Kernel
import ServiceCatalog
import Testing

@testable import osctl

/// Hosts that cannot be emptied while their guests run.
@Suite struct MoveFindingsTests {
    private func host(_ name: String, version: Int = 7_002_000, features: [String] = []) -> MoveFindings.Host {
        MoveFindings.Host(
            name: name,
            capabilities: HostCapabilities(
                cpus: 8, memoryMiB: 16_384, diskGiB: 100, virtType: "kvm", hypervisorType: "QEMU", hypervisorVersion: version,
                reserved: .init(vcpu: 0, memoryMiB: 0, diskGiB: 0), allocationRatios: .init(vcpu: 4, memoryMiB: 1, diskGiB: 1),
                processor: .init(
                    arch: "x86_64", model: "m", vendor: "", features: features, topology: .init(sockets: 1, cores: 8, threads: 1)),
                traits: [], release: "0.2.0"))
    }

    @Test func aHostWithoutATargetIsNamed() {
        #expect(MoveFindings.findings([host("a")]).isEmpty)
        #expect(MoveFindings.findings([host("a"), host("b")]).isEmpty)
        // Guests of the newer processor cannot run on the other hosts; guests of the others can run anywhere.
        let found = MoveFindings.findings([host("a"), host("b"), host("c", features: ["avx512f"])])
        #expect(found.map(\.subject) == ["host c"] && found[0].words.contains("avx512f") && found[0].invariant == "I17")
        #expect(MoveFindings.findings([host("a", version: 8_000_000), host("b")]).map(\.subject) == ["host a"])
    }
}
