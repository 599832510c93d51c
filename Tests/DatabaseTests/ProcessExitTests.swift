import CProcessExit
import Testing

/// The end of a process while threads of sessions end too.
@Suite struct ProcessExitTests {
    /// Otherwise exit(3) frees libcrypto's records of the threads at the same time as these do, and some processes abort.
    @Test func exitLeavesLibcryptoAlone() { #expect(cprocessexit_keeps_libcrypto() == 1) }
}
