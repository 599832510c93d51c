import CLibvirt
import Foundation

/// libvirt's default event loop on its own thread. There is one per process, started before the first connection. It delivers
/// keepalive messages, close notifications and domain events.
enum EventLoop {
    private static let started: Bool = {
        virInitialize()
        // Without a handler, libvirt prints every error to standard error.
        virSetErrorFunc(nil) { _, _ in }
        guard virEventRegisterDefaultImpl() == 0 else { return false }
        // A timer makes the loop wake up even when no file descriptor is registered yet.
        virEventAddTimeout(1000, { _, _ in }, nil, nil)
        let thread = Thread {
            while true {
                if virEventRunDefaultImpl() < 0 { usleep(100_000) }
            }
        }
        thread.name = "libvirt-events"
        thread.start()
        return true
    }()

    static func start() throws {
        guard started else { throw LibvirtError.last("virEventRegisterDefaultImpl") }
    }
}
