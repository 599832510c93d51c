import ConsoleCore
import Kernel
import NIOCore
import Synchronization
import Telemetry
import WebAPI

/// Limits the connections of the listener: how many there are in total and per address, and how long a request may take.
final class ConsoleGate: Sendable {
    private struct State {
        var count = 0
        var perSource: [String: Int] = [:]
    }

    private let limits: ConsoleRules.Limits
    private let metrics: Metrics
    private let state = Mutex(State())

    init(_ limits: ConsoleRules.Limits, metrics: Metrics) {
        self.limits = limits
        self.metrics = metrics
    }

    private func admit(_ source: String) -> Bool {
        let isAdmitted = state.withLock { state in
            guard state.count < limits.connectionsMax, state.perSource[source, default: 0] < limits.connectionsPerSourceMax else {
                return false
            }
            state.count += 1
            state.perSource[source, default: 0] += 1
            return true
        }
        if !isAdmitted {
            metrics.increment("wolke_console_connections_refused_total", [], help: "Connections refused because too many are open.")
        }
        return isAdmitted
    }

    private func release(_ source: String) {
        state.withLock { state in
            state.count -= 1
            let count = state.perSource[source, default: 1] - 1
            state.perSource[source] = count > 0 ? count : nil
        }
    }

    /// The connection is a session from now on: its time is no longer limited.
    func upgraded(_ channel: any Channel) async {
        do {
            try await channel.eventLoop.submit {
                try channel.pipeline.syncOperations.handler(type: Handler.self).isSession = true
            }.get()
        } catch {
            // The connection has closed in the meantime.
        }
    }

    /// First in the pipeline of each connection.
    final class Handler: ChannelInboundHandler {
        typealias InboundIn = ByteBuffer
        typealias InboundOut = ByteBuffer

        private let gate: ConsoleGate
        private var source: String?
        private var deadline: Scheduled<Void>?
        var isSession = false {
            didSet { if isSession { deadline?.cancel() } }
        }

        init(_ gate: ConsoleGate) { self.gate = gate }

        func channelActive(context: ChannelHandlerContext) {
            let source = PeerAddress.source(PeerAddress.parse(context.channel.remoteAddress?.ipAddress))
            guard gate.admit(source) else {
                context.close(promise: nil)
                return
            }
            self.source = source
            let channel = context.channel
            deadline = context.eventLoop.scheduleTask(in: .nanoseconds(gate.limits.requestTimeout.microseconds * 1000)) {
                channel.close(promise: nil)
            }
            context.fireChannelActive()
        }

        func channelInactive(context: ChannelHandlerContext) {
            deadline?.cancel()
            if let source { gate.release(source) }
            source = nil
            context.fireChannelInactive()
        }
    }
}
