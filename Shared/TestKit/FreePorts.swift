import Glibc
import Kernel
import Synchronization

/// TCP ports of 127.0.0.1 that are not in use.
package enum FreePorts {
    /// Below the range for outgoing connections, because a connection of another test could take a port of that range between its
    /// choice and its use.
    private static let range = 20_000..<32_000
    private static let given = Mutex<Set<Int>>([])

    /// Returns distinct ports that were not returned to this process before.
    ///
    /// - Throws: `ResourceError` if there are none.
    package static func take(_ count: Int) throws -> [Int] {
        let random = SystemRandom()
        return try given.withLock { given in
            var ports: [Int] = []
            for _ in 0..<10_000 where ports.count < count {
                let port = range.lowerBound + random.below(range.count)
                guard isFree(port), given.insert(port).inserted else { continue }
                ports.append(port)
            }
            guard ports.count == count else { throw ResourceError.internalError("no free port") }
            return ports
        }
    }

    private static func isFree(_ port: Int) -> Bool {
        let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue | SOCK_CLOEXEC.rawValue), 0)
        guard descriptor >= 0 else { return false }
        defer { close(descriptor) }
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_addr = in_addr(s_addr: UInt32(0x7f00_0001).bigEndian)
        address.sin_port = in_port_t(port).bigEndian
        return withUnsafePointer(to: &address) {
            $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
                bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
            }
        }
    }
}
