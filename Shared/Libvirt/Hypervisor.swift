import CLibvirt
import Foundation
package import Kernel
package import Logging
import Synchronization

/// A connection to libvirt that reconnects automatically.
///
/// Calls run on dedicated threads, several at a time. While libvirtd is unavailable they fail at once with an error whose
/// `isConnectionFailure` is true; the next call after its return opens the connection again and sends an event.
package final class Hypervisor: Sendable {
    package let uri: String
    private let log: Logger
    private let threads: WorkerThreads
    /// For calls that return when a guest has moved to another host.
    let movingThreads: WorkerThreads
    private let connectionLock = NSLock()
    // Guarded by `connectionLock`. libvirt's handles are counted references and usable from any thread.
    private nonisolated(unsafe) var connection: OpaquePointer?
    private nonisolated(unsafe) var lifecycleRegistration: Int32 = -1
    private nonisolated(unsafe) var closed = false
    private nonisolated(unsafe) var announced = false
    private let subscribers = Mutex<[Int: AsyncStream<LibvirtEvent>.Continuation]>([:])
    private let nextSubscriber = Atomic<Int>(0)

    /// - Parameters:
    ///   - threads: number of concurrent calls.
    ///   - moves: number of guests that can move to other hosts at the same time.
    package init(uri: String, threads: Int = 4, moves: Int = 1, log: Logger) {
        self.uri = uri
        self.log = log
        self.threads = WorkerThreads(name: "libvirt", count: threads)
        movingThreads = WorkerThreads(name: "moves", count: moves)
    }

    /// Closes the connection; later calls fail.
    package func close() async {
        await withCheckedContinuation { (continuation: CheckedContinuation<Void, Never>) in
            let accepted = threads.submit { [self] in
                connectionLock.withLock {
                    closed = true
                    drop()
                }
                continuation.resume()
            }
            if !accepted { continuation.resume() }
        }
        threads.close()
        movingThreads.close()
        // Finishing a stream removes it, which takes the same lock.
        let open = subscribers.withLock { Array($0.values) }
        for subscriber in open { subscriber.finish() }
    }

    /// Events of domains and of the connection from now on. Ends when the connection is closed.
    package func events() -> AsyncStream<LibvirtEvent> {
        let number = nextSubscriber.wrappingAdd(1, ordering: .relaxed).newValue
        return AsyncStream(bufferingPolicy: .bufferingNewest(10_000)) { continuation in
            subscribers.withLock { $0[number] = continuation }
            continuation.onTermination = { [weak self] _ in _ = self?.subscribers.withLock { $0[number] = nil } }
        }
    }

    /// Keeps the connection open until the task is cancelled. It checks every `interval` and reconnects, so that events arrive
    /// even if nothing calls.
    package func keepConnected(every interval: Duration = .seconds(1), time: any TimeSource) async {
        var failures = 0
        while !Task.isCancelled {
            do {
                try await call("virConnectIsAlive") { _ in }
                failures = 0
            } catch {
                if failures == 0 || failures % 60 == 0 {
                    log.warning("libvirt is unavailable", metadata: ["uri": "\(uri)", "error": "\(error)"])
                }
                failures += 1
            }
            do { try await time.sleep(for: interval) } catch { return }
        }
    }

    // MARK: calls

    /// Runs `body` with the open connection on one of the threads.
    ///
    /// - Parameter pool: nil for the threads of short calls.
    /// - Throws: `LibvirtError`.
    func call<Value: Sendable>(
        _ name: String, on pool: WorkerThreads? = nil, _ body: @escaping @Sendable (OpaquePointer) throws -> Value
    ) async throws -> Value {
        try await withCheckedThrowingContinuation { (continuation: CheckedContinuation<Value, any Error>) in
            let accepted = (pool ?? threads).submit { [self] in
                do {
                    let handle = try open()
                    defer { virConnectClose(handle) }
                    continuation.resume(returning: try body(handle))
                } catch {
                    if let error = error as? LibvirtError, error.isConnectionFailure { dropIfDead() }
                    continuation.resume(throwing: error)
                }
            }
            if !accepted {
                continuation.resume(
                    throwing: LibvirtError(
                        code: Int(VIR_ERR_INVALID_CONN.rawValue), domain: 0, message: "the connection was closed",
                        call: name))
            }
        }
    }

    /// Runs `body` with the domain that has the UUID.
    func withDomain<Value: Sendable>(
        _ uuid: String, _ name: String, on pool: WorkerThreads? = nil, _ body: @escaping @Sendable (OpaquePointer) throws -> Value
    ) async throws -> Value {
        try await call(name, on: pool) { connection in
            guard let domain = virDomainLookupByUUIDString(connection, uuid) else {
                throw LibvirtError.last("virDomainLookupByUUIDString")
            }
            defer { virDomainFree(domain) }
            return try body(domain)
        }
    }

    /// A counted reference to the open connection; the caller must release it with `virConnectClose`.
    private func open() throws -> OpaquePointer {
        connectionLock.lock()
        defer { connectionLock.unlock() }
        if let connection {
            if virConnectIsAlive(connection) == 1 {
                virConnectRef(connection)
                return connection
            }
            drop()
        }
        guard !closed else {
            throw LibvirtError(
                code: Int(VIR_ERR_INVALID_CONN.rawValue), domain: 0, message: "the connection was closed", call: "open")
        }
        try EventLoop.start()
        guard let opened = virConnectOpen(uri) else { throw LibvirtError.last("virConnectOpen") }
        // Local drivers have no keepalive; the failure is ignored.
        virConnectSetKeepAlive(opened, 5, 3)
        register(opened)
        connection = opened
        virConnectRef(opened)
        announced = true
        log.info("libvirt is connected", metadata: ["uri": "\(uri)"])
        emit(.connected)
        return opened
    }

    private func dropIfDead() {
        connectionLock.withLock {
            if let connection, virConnectIsAlive(connection) != 1 { drop() }
        }
    }

    /// Must be called with `connectionLock` held.
    private func drop() {
        guard let old = connection else { return }
        connection = nil
        if lifecycleRegistration >= 0 { virConnectDomainEventDeregisterAny(old, lifecycleRegistration) }
        lifecycleRegistration = -1
        virConnectUnregisterCloseCallback(old, closeCallback)
        virConnectClose(old)
        if announced {
            announced = false
            emit(.disconnected)
        }
    }

    // MARK: events

    /// Must be called with `connectionLock` held.
    private func register(_ handle: OpaquePointer) {
        let owner = Unmanaged.passRetained(WeakHypervisor(self))
        let registered = virConnectDomainEventRegisterAny(
            handle, nil, Int32(VIR_DOMAIN_EVENT_ID_LIFECYCLE.rawValue),
            unsafeBitCast(lifecycleCallback, to: virConnectDomainEventGenericCallback.self),
            owner.toOpaque(), releaseOwner)
        lifecycleRegistration = registered
        if registered < 0 {
            owner.release()
            log.warning("no domain events from libvirt", metadata: ["error": "\(LibvirtError.last("events"))"])
        }
        let closer = Unmanaged.passRetained(WeakHypervisor(self))
        if virConnectRegisterCloseCallback(handle, closeCallback, closer.toOpaque(), releaseOwner) < 0 {
            closer.release()  // drivers without a socket cannot lose it
        }
    }

    func emit(_ event: LibvirtEvent) {
        // The lock must not be held here: `yield` takes the lock of the waiting task. While a task is being cancelled, that lock
        // is held around `onTermination`, which takes `connectionLock`.
        let open = subscribers.withLock { Array($0.values) }
        for subscriber in open { subscriber.yield(event) }
    }

    /// Runs on libvirt's event thread and only schedules work; `drop` must not run inside libvirt's own callback.
    fileprivate func connectionLost() {
        _ = threads.submit { [self] in dropIfDead() }
    }
}

/// The object that libvirt's registrations refer to, so that they do not keep an unused connection alive.
private final class WeakHypervisor {
    weak var hypervisor: Hypervisor?
    init(_ hypervisor: Hypervisor) { self.hypervisor = hypervisor }
}

private let releaseOwner: virFreeCallback = { opaque in
    if let opaque { Unmanaged<WeakHypervisor>.fromOpaque(opaque).release() }
}

private let lifecycleCallback: virConnectDomainEventCallback = { _, domain, event, detail, opaque in
    guard let opaque, let domain else { return 0 }
    let hypervisor = Unmanaged<WeakHypervisor>.fromOpaque(opaque).takeUnretainedValue().hypervisor
    var text = [CChar](repeating: 0, count: Int(VIR_UUID_STRING_BUFLEN))
    if virDomainGetUUIDString(domain, &text) == 0 {
        hypervisor?.emit(.lifecycle(uuid: cText(text), event: Int(event), detail: Int(detail)))
    }
    return 0
}

private let closeCallback: virConnectCloseFunc = { _, _, opaque in
    guard let opaque else { return }
    Unmanaged<WeakHypervisor>.fromOpaque(opaque).takeUnretainedValue().hypervisor?.connectionLost()
}

/// The text of a C buffer up to its terminating zero.
func cText(_ buffer: [CChar]) -> String {
    String(decoding: buffer.prefix { $0 != 0 }.map { UInt8(bitPattern: $0) }, as: UTF8.self)
}

/// The text of a string that libvirt allocated; frees it.
func takeText(_ pointer: UnsafeMutablePointer<CChar>?) -> String? {
    guard let pointer else { return nil }
    defer { free(pointer) }
    return String(cString: pointer)
}
