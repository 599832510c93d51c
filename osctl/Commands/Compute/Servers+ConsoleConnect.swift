import ArgumentParser
import Client
import Foundation
import Glibc
import JSON
import Kernel
import NIOCore
import NIOHTTP1
import NIOPosix
import NIOWebSocket
import ServiceCatalog

extension Servers {
    /// `osctl server console connect NAME`
    struct Connect: APICommand {
        static let configuration = CommandConfiguration(
            commandName: "connect", abstract: "Attach the terminal to a server's serial port. Ctrl-] ends the session.")
        @Argument(help: "The server.") var server: String
        @OptionGroup(title: "Cloud") var access: AccessOptions

        func execute(_ api: CloudAPI) async throws {
            let answer = try await api.client.post(
                .compute, kind.path(id: try await api.id(kind, server)) + "/remote-consoles",
                ["remote_console": ["protocol": "serial", "type": "serial"]], microversion: kind.microversion)
            let console = try await SerialConsole.open(answer["remote_console"]?["url"]?.stringValue ?? "", api.client.ambient.random)
            let terminal = RawTerminal()
            defer { terminal.restore() }
            if terminal.isTerminal { Machine.write(to: 2, "Connected; Ctrl-] ends the session.\r\n") }
            let reason = try await console.run()
            if terminal.isTerminal { Machine.write(to: 2, "\r\n\(reason)\r\n") }
        }
    }
}

/// Standard input without line editing and echo, if it is a terminal.
private final class RawTerminal {
    let isTerminal = isatty(0) == 1
    private var before = termios()

    init() {
        guard isTerminal, tcgetattr(0, &before) == 0 else { return }
        var raw = before
        cfmakeraw(&raw)
        tcsetattr(0, TCSANOW, &raw)
    }

    func restore() {
        if isTerminal { tcsetattr(0, TCSANOW, &before) }
    }
}

/// A session with a serial port: a WebSocket (RFC 6455) whose binary frames have the port's bytes.
private struct SerialConsole: Sendable {
    private typealias Frames = NIOAsyncChannel<WebSocketFrame, WebSocketFrame>

    private enum Upgrade: Sendable {
        case open(Frames)
        case refused
    }

    /// Ctrl-]
    private static let end: UInt8 = 0x1d

    private let channel: Frames
    private let random: any RandomSource

    /// - Throws: `CommandFailure` if the console service refuses the session.
    static func open(_ url: String, _ random: any RandomSource) async throws -> SerialConsole {
        guard let parts = URLComponents(string: url), let host = parts.host else { throw CommandFailure("\(url) is not a URL.") }
        guard parts.scheme == "http" else { throw CommandFailure("Only consoles behind http can be attached, not \(parts.scheme ?? "").") }
        let port = parts.port ?? 80
        let head = HTTPRequestHead(
            version: .http1_1, method: .GET, uri: "/?" + (parts.percentEncodedQuery ?? ""),
            headers: ["host": "\(host):\(port)", "sec-websocket-protocol": "binary"])
        let upgrade = try await ClientBootstrap(group: MultiThreadedEventLoopGroup.singleton)
            .connect(host: host, port: port) { channel in
                channel.eventLoop.makeCompletedFuture {
                    let upgrader = NIOTypedWebSocketClientUpgrader<Upgrade>(
                        maxFrameSize: 1 << 20,
                        upgradePipelineHandler: { channel, _ in
                            channel.eventLoop.makeCompletedFuture { .open(try Frames(wrappingChannelSynchronously: channel)) }
                        })
                    let configuration = NIOTypedHTTPClientUpgradeConfiguration<Upgrade>(
                        upgradeRequestHead: head, upgraders: [upgrader],
                        notUpgradingCompletionHandler: { channel in
                            channel.close(promise: nil)
                            return channel.eventLoop.makeSucceededFuture(.refused)
                        })
                    return try channel.pipeline.syncOperations.configureUpgradableHTTPClientPipeline(
                        configuration: .init(upgradeConfiguration: configuration))
                }
            }
        guard case .open(let channel) = try await upgrade.get() else {
            throw CommandFailure("The console service at \(host):\(port) refuses the session.")
        }
        return SerialConsole(channel: channel, random: random)
    }

    /// A client's frames are masked (RFC 6455, 5.3).
    private func frame(_ opcode: WebSocketOpcode, _ data: ByteBuffer) -> WebSocketFrame {
        let key = withUnsafeBytes(of: random.next()) { WebSocketMaskingKey($0.prefix(4)) }
        return WebSocketFrame(fin: true, opcode: opcode, maskKey: key, data: data)
    }

    /// Copies both ways until the session ends.
    ///
    /// - Returns: why it ended.
    func run() async throws -> String {
        let input = SerialConsole.standardInput()
        return try await channel.executeThenClose { inbound, outbound in
            try await withThrowingTaskGroup(of: String.self) { group in
                group.addTask {
                    for await bytes in input {
                        let isLast = bytes.contains(SerialConsole.end)
                        let typed = bytes.prefix { $0 != SerialConsole.end }
                        if !typed.isEmpty { try await outbound.write(frame(.binary, ByteBuffer(bytes: typed))) }
                        if isLast { break }
                    }
                    try await outbound.write(frame(.connectionClose, ByteBuffer()))
                    return "The session has ended."
                }
                group.addTask {
                    for try await frame in inbound {
                        var data = frame.unmaskedData
                        switch frame.opcode {
                        case .binary, .text, .continuation: Machine.write(to: 1, data.readBytes(length: data.readableBytes) ?? [])
                        case .ping: try await outbound.write(self.frame(.pong, data))
                        case .connectionClose:
                            data.moveReaderIndex(forwardBy: min(2, data.readableBytes))
                            return String(buffer: data)
                        default: break
                        }
                    }
                    return "The connection was closed."
                }
                defer { group.cancelAll() }
                return try await group.next() ?? ""
            }
        }
    }

    /// The typed characters. The reading thread blocks in `read` and ends with the process.
    private static func standardInput() -> AsyncStream<[UInt8]> {
        AsyncStream { continuation in
            let thread = Thread {
                var bytes = [UInt8](repeating: 0, count: 4096)
                while true {
                    let count = read(0, &bytes, bytes.count)
                    if count < 0, errno == EINTR { continue }
                    guard count > 0 else { break }
                    continuation.yield(Array(bytes[..<count]))
                }
                continuation.finish()
            }
            thread.start()
        }
    }
}
