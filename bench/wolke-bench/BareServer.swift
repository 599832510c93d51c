import ArgumentParser
import Hummingbird
import Logging
import NIOCore

/// The peer of the HTTP rows: the same HTTP library with nothing behind it.
struct BareServer: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
        commandName: "serve", abstract: "Answers every request with the bytes of one file.")

    @Option(help: "Port on 127.0.0.1.")
    var port: Int

    @Option(help: "File with the bytes of every answer.")
    var body: String

    func run() async throws {
        let bytes = ByteBuffer(bytes: try readFile(body))
        var log = Logger(label: "wolke-bench")
        log.logLevel = .warning
        let application = Application(
            responder: FixedResponder(bytes: bytes),
            configuration: .init(address: .hostname("127.0.0.1", port: port), serverName: nil, backlog: 1024),
            logger: log)
        try await application.run()
    }
}

private struct FixedResponder: HTTPResponder {
    typealias Context = BasicRequestContext

    let bytes: ByteBuffer

    func respond(to request: Request, context: Context) async throws -> Response {
        Response(
            status: .ok, headers: [.contentType: "application/json"], body: ResponseBody(byteBuffer: bytes))
    }
}
