import Kernel
package import Libvirt
package import Messaging
import NIOCore
package import OVSDB
package import Telemetry
import WebAPI

/// `/healthz`, `/readyz`, `/version` and `/metrics` of the agent.
package struct AgentHealth: Sendable {
    private let hypervisor: Hypervisor
    private let switchDatabase: OVSDBClient
    private let bus: any MessageBus
    private let metrics: Metrics

    package init(hypervisor: Hypervisor, switchDatabase: OVSDBClient, bus: any MessageBus, metrics: Metrics) {
        self.hypervisor = hypervisor
        self.switchDatabase = switchDatabase
        self.bus = bus
        self.metrics = metrics
    }

    /// Serves until the task is cancelled.
    package func serve(host: String, port: Int) async throws {
        let ledger = ConnectionLedger(limits: .small, listener: "operator", metrics: metrics)
        let channel = try await SmallHTTPServer.serve(host: host, port: port, ledger) { await answer($0) }
        try await withTaskCancellationHandler {
            try await channel.closeFuture.get()
        } onCancel: {
            channel.close(promise: nil)
        }
    }

    /// The answer to one request: 405 for what is not GET or HEAD, 404 for other paths.
    package func answer(_ request: SmallRequest) async -> SmallResponse {
        guard request.method == "GET" || request.method == "HEAD" else {
            return SmallResponse(status: 405, text: "only GET is answered here\n")
        }
        switch request.path {
        case "/healthz": return SmallResponse(status: 200, text: "ok\n")
        case "/version": return SmallResponse(status: 200, text: WolkeVersion.current + "\n")
        case "/readyz":
            let problems = await problems()
            return problems.isEmpty
                ? SmallResponse(status: 200, text: "ready\n")
                : SmallResponse(status: 503, text: problems.joined(separator: "\n") + "\n")
        case "/metrics":
            return SmallResponse(
                status: 200, contentType: "text/plain; version=0.0.4; charset=utf-8",
                body: Array(metrics.render().utf8))
        default: return SmallResponse(status: 404, text: "here are /healthz, /readyz, /version and /metrics\n")
        }
    }

    /// A description of unavailable dependencies.
    private func problems() async -> [String] {
        var problems: [String] = []
        do { _ = try await hypervisor.libraryVersion() } catch { problems.append("libvirt: \(error)") }
        if await !switchDatabase.isConnected {
            problems.append("Open vSwitch: \(await switchDatabase.problem ?? "no session yet")")
        }
        if !bus.isConnected { problems.append("RabbitMQ: no connection") }
        return problems
    }
}
