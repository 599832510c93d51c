import Glibc
import Kernel
import Testing

@Suite struct DescriptorLimitTests {
    @Test("S18: the descriptor limit is raised at the start, and some descriptors are reserved")
    func s18DescriptorsAreReserved() {
        let resource = __rlimit_resource_t(RLIMIT_NOFILE.rawValue)
        var limit = rlimit()
        #expect(getrlimit(resource, &limit) == 0)
        let most = min(limit.rlim_max, 65_536)
        var lower = rlimit(rlim_cur: most - 1, rlim_max: limit.rlim_max)
        #expect(setrlimit(resource, &lower) == 0)
        #expect(DescriptorLimit.raise() == Int(most))
        #expect(getrlimit(resource, &limit) == 0 && limit.rlim_cur == most)
        #expect(DescriptorLimit.reserve(of: 65_536) == 8192 && DescriptorLimit.reserve(of: 1024) == 128)
    }
}
