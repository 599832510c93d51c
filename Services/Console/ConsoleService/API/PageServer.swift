import NIOCore
import NIOHTTP1

/// Answers one request for a page and closes the connection.
struct PageServer: Sendable {
    let pages: LoadedPages

    /// The headers of every response. The URL contains a token, which must not reach other sites or caches.
    private static let headers: HTTPHeaders = [
        "cache-control": "no-store", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff", "connection": "close",
    ]

    func serve(_ channel: ConsoleListener.Pages) async throws {
        try await channel.executeThenClose { inbound, outbound in
            for try await part in inbound {
                guard case .head(let head) = part else { continue }
                let answer = answer(head)
                var headers = PageServer.headers
                headers.add(name: "content-type", value: answer.type)
                headers.add(name: "content-length", value: String(answer.bytes.count))
                for (name, value) in answer.more { headers.add(name: name, value: value) }
                let response = HTTPResponseHead(version: .http1_1, status: answer.status, headers: headers)
                try await outbound.write(.head(response))
                if head.method != .HEAD { try await outbound.write(.body(ByteBuffer(bytes: answer.bytes))) }
                try await outbound.write(.end(nil))
                return
            }
        }
    }

    private struct Answer {
        var status = HTTPResponseStatus.ok
        var type = "text/plain; charset=utf-8"
        var bytes: [UInt8] = []
        var more: [(String, String)] = []
    }

    private func answer(_ head: HTTPRequestHead) -> Answer {
        guard [.GET, .HEAD].contains(head.method) else {
            return Answer(status: .methodNotAllowed, bytes: Array("Only GET and HEAD are possible.\n".utf8), more: [("allow", "GET, HEAD")])
        }
        let path = head.uri.prefix { $0 != "?" && $0 != "#" }
        if path == "/healthz" { return Answer(bytes: Array("ok\n".utf8)) }
        guard let page = pages.files[String(path)] else {
            return Answer(status: .notFound, bytes: Array("There is no such page.\n".utf8))
        }
        return Answer(type: page.type, bytes: page.bytes)
    }
}

/// Converts response parts to the type that NIO's encoder takes.
final class PageEncoder: ChannelOutboundHandler {
    typealias OutboundIn = HTTPPart<HTTPResponseHead, ByteBuffer>
    typealias OutboundOut = HTTPServerResponsePart

    func write(context: ChannelHandlerContext, data: NIOAny, promise: EventLoopPromise<Void>?) {
        let part: HTTPServerResponsePart =
            switch unwrapOutboundIn(data) {
            case .head(let head): .head(head)
            case .body(let bytes): .body(.byteBuffer(bytes))
            case .end(let trailers): .end(trailers)
            }
        context.write(wrapOutboundOut(part), promise: promise)
    }
}
