import Foundation
import JSON
import Kernel
import NIOCore
import ServiceCatalog
import Synchronization
import TestKit
import Testing

@testable import Client

@Suite struct ClientTests {
    // MARK: signing on

    @Test func oneTokenServesManyRequests() async throws {
        let cloud = try StubCloud { _, _ in .json(200, ["servers": []]) }
        let client = cloud.client()
        try await withThrowingTaskGroup(of: Void.self) { group in
            for _ in 0..<8 { group.addTask { _ = try await client.get(.compute, "/servers") } }
            try await group.waitForAll()
        }
        #expect(cloud.signOns == 1)
        let asked = cloud.server.requests.filter { $0.path == "/compute/v2.1/servers" }
        #expect(asked.count == 8)
        #expect(asked.allSatisfy { $0.headers["x-auth-token"] == "token-1" })
    }

    @Test func theSignOnNamesUserAndProject() async throws {
        let cloud = try StubCloud { _, _ in .json(200, [:]) }
        _ = try await cloud.client().token()
        let body = try #require(cloud.server.requests.first).json
        #expect(body["auth"]?["identity"]?["password"]?["user"]?["name"] == "demo")
        #expect(body["auth"]?["identity"]?["password"]?["user"]?["domain"]?["id"] == "default")
        #expect(body["auth"]?["scope"]?["project"]?["name"] == "demo")
    }

    @Test func aTokenNearItsEndIsRenewed() async throws {
        let cloud = try StubCloud(lifetime: .seconds(60)) { _, _ in .json(200, [:]) }
        let client = cloud.client()
        _ = try await client.get(.compute, "/a")
        _ = try await client.get(.compute, "/b")
        #expect(cloud.signOns == 2)
    }

    @Test func aRefusedTokenIsReplacedOnce() async throws {
        let cloud = try StubCloud { request, _ in
            request.headers["x-auth-token"] == "token-1" ? .json(401, ["error": ["message": "no"]]) : .json(200, ["ok": true])
        }
        #expect(try await cloud.client().get(.compute, "/servers")["ok"] == true)
        #expect(cloud.signOns == 2)
    }

    @Test func aServiceThatRefusesEveryTokenIsAnError() async throws {
        let cloud = try StubCloud { _, _ in .json(401, ["error": ["message": "no"]]) }
        let error = await #expect(throws: ResourceError.self) { _ = try await cloud.client().get(.compute, "/servers") }
        #expect(error?.code == .unauthorized)
        #expect(cloud.signOns == 2)
    }

    @Test func wrongCredentialsAreReported() async throws {
        let server = try StubServer { _ in
            .json(401, ["error": ["code": 401, "message": "The request you have made requires authentication."]])
        }
        let configuration = CloudConfiguration(
            name: "x", authURL: server.url, credentials: .password(user: .id("u"), password: Secret("p")), scope: .unscoped)
        let error = await #expect(throws: ResourceError.self) { _ = try await RESTClient(configuration).token() }
        #expect(error?.type == ClientErrorType.signOnRefused)
        #expect(error?.message == "The request you have made requires authentication.")
    }

    final class MemoryCache: TokenCache {
        let token = Mutex<CloudToken?>(nil)
        let removals = Mutex(0)
        func load() -> CloudToken? { token.withLock { $0 } }
        func store(_ token: CloudToken) { self.token.withLock { $0 = token } }
        func remove() {
            token.withLock { $0 = nil }
            removals.withLock { $0 += 1 }
        }
    }

    @Test func aKeptTokenMakesAListOneRequest() async throws {
        let cloud = try StubCloud { _, _ in .json(200, ["servers": []]) }
        let cache = MemoryCache()
        _ = try await cloud.client(cache: cache).get(.compute, "/servers")
        _ = try await cloud.client(cache: cache).get(.compute, "/servers")
        #expect(cloud.signOns == 1)
        #expect(cloud.server.lines.count == 3)
    }

    @Test func aKeptTokenThatIsRefusedIsForgotten() async throws {
        let cloud = try StubCloud { request, _ in
            request.headers["x-auth-token"] == "token-1" ? .empty(401) : .json(200, [:])
        }
        let cache = MemoryCache()
        _ = try await cloud.client(cache: cache).token()
        _ = try await cloud.client(cache: cache).get(.compute, "/servers")
        #expect(cache.removals.withLock { $0 } == 1)
        #expect(cache.load()?.secret.exposed == "token-2")
    }

    /// The cloud may have got the service after another process obtained the token.
    @Test func aCachedCatalogThatLacksTheServiceIsReadAgain() async throws {
        let cloud = try StubCloud { _, _ in .json(200, [:]) }
        let cache = MemoryCache()
        _ = try await cloud.client(cache: cache).token()
        let client = cloud.client(cache: cache)
        for _ in 0..<2 {
            let error = await #expect(throws: ResourceError.self) { _ = try await client.get(.bareMetal, "/nodes") }
            #expect(error?.type == ClientErrorType.noEndpoint)
        }
        #expect(cloud.signOns == 2)
    }

    // MARK: endpoints

    @Test func pathsFollowTheCatalog() async throws {
        let cloud = try StubCloud { _, _ in .json(200, [:]) }
        let client = cloud.client()
        _ = try await client.get(.compute, "/servers/\("a b")")
        _ = try await client.get(.network, "/ports")
        _ = try await client.get(.network, "/v2.0/ports")
        _ = try await client.get(.blockStorage, "/volumes")
        _ = try await client.get(.image, "/images", query: [("name", "a&b")])
        #expect(
            cloud.server.lines.dropFirst() == [
                "GET /compute/v2.1/servers/a%20b", "GET /network/v2.0/ports", "GET /network/v2.0/ports", "GET /volume/v3/p1/volumes",
                "GET /image/v2/images?name=a%26b",
            ])
    }

    @Test func aMissingServiceNamesThoseThatAreThere() async throws {
        let cloud = try StubCloud { _, _ in .json(200, [:]) }
        let error = await #expect(throws: ResourceError.self) { _ = try await cloud.client().get(.placement, "/x") }
        #expect(error?.type == ClientErrorType.noEndpoint)
        #expect(error?.message.contains("compute, network, image, volumev3") == true)
    }

    @Test func microversionsGoOutInBothForms() async throws {
        let cloud = try StubCloud { _, _ in .json(200, [:]) }
        _ = try await cloud.client().get(.compute, "/servers", microversion: "2.96")
        let request = try #require(cloud.server.requests.last)
        #expect(request.headers["openstack-api-version"] == "compute 2.96")
        #expect(request.headers["x-openstack-nova-api-version"] == "2.96")
    }

    // MARK: retries

    @Test(arguments: [502, 503, 504]) func readsAreRepeated(status: Int) async throws {
        let cloud = try StubCloud { _, number in number < 3 ? .empty(status) : .json(200, ["ok": true]) }
        #expect(try await cloud.client().get(.compute, "/servers")["ok"] == true)
        #expect(cloud.server.lines.count == 4)
    }

    @Test("S13: redirects are not followed, so a response cannot direct the token elsewhere")
    func s13RedirectsAreNotFollowed() async throws {
        let elsewhere = try StubServer { _ in .json(200, ["servers": []]) }
        let url = elsewhere.url
        for status in [301, 302, 303, 307, 308] {
            let cloud = try StubCloud { _, _ in .empty(status, headers: [("location", url + "/servers")]) }
            await #expect(throws: (any Error).self) { _ = try await cloud.client().get(.compute, "/servers") }
        }
        #expect(elsewhere.requests.isEmpty)
    }

    @Test("S12 S14: an interpolated value stays one segment of the path") func s14ValuesStayInTheirSegment() async throws {
        let cloud = try StubCloud { _, _ in .json(200, [:]) }
        for value in ["../admin", "a/b", "a?all_tenants=1", "a#b", "%2e%2e", "a b\r\nX-Auth-Token: x", "..;/"] {
            _ = try await cloud.client().get(.compute, "/servers/\(value)/tags")
            let asked = try #require(cloud.server.requests.last)
            #expect(asked.path.split(separator: "/").count == 5 && asked.query.isEmpty, "\(asked.line)")
            #expect(asked.path.removingPercentEncoding == "/compute/v2.1/servers/\(value)/tags")
        }
        #expect(cloud.server.requests.allSatisfy { $0.headers["x-auth-token"] != "x" })
    }

    @Test func brokenConnectionsAreRepeatedForReads() async throws {
        let cloud = try StubCloud { _, number in number == 1 ? .dropped : .json(200, ["ok": true]) }
        #expect(try await cloud.client().get(.compute, "/servers")["ok"] == true)
    }

    @Test func anAnswerThatBreaksOffIsRepeatedForReads() async throws {
        let cloud = try StubCloud { _, number in
            let answer = StubServer.Answer.json(200, ["ok": true, "text": .string(String(repeating: "x", count: 1000))])
            return number == 1 ? answer.broken(after: 100) : answer
        }
        #expect(try await cloud.client().get(.compute, "/servers")["ok"] == true)
    }

    @Test func writesAreNotRepeated() async throws {
        let cloud = try StubCloud { _, _ in .dropped }
        let error = await #expect(throws: ResourceError.self) { try await cloud.client().post(.compute, "/servers", [:]) }
        #expect(error?.type == ClientErrorType.unreachable)
        #expect(cloud.server.lines.filter { $0.hasPrefix("POST /compute") }.count == 1)
    }

    @Test func writesWithAKeyAreRepeatedWithTheSameKey() async throws {
        let cloud = try StubCloud { _, number in number < 3 ? .dropped : .json(202, ["ok": true]) }
        #expect(try await cloud.client().post(.compute, "/servers", [:], idempotencyKey: "k1")["ok"] == true)
        let keys = cloud.server.requests.filter { $0.path.hasSuffix("servers") }.map { $0.headers["idempotency-key"] }
        #expect(keys == ["k1", "k1", "k1"])
    }

    @Test func repeatsEnd() async throws {
        let cloud = try StubCloud { _, _ in .empty(503) }
        let error = await #expect(throws: ResourceError.self) { _ = try await cloud.client().get(.compute, "/servers") }
        #expect(error?.code == .unavailable)
        #expect(cloud.server.lines.count == 1 + RetryPolicy().attemptsMax)
    }

    @Test func noServerIsUnreachable() async throws {
        let cloud = try StubCloud { _, _ in .empty(200) }
        let client = cloud.client()
        cloud.server.stop()
        let error = await #expect(throws: ResourceError.self) { _ = try await client.token() }
        #expect(error?.type == ClientErrorType.unreachable)
        #expect(error?.context?.contains("refused") == true)
    }

    @Test func backoffGrowsToALimit() {
        let policy = RetryPolicy()
        let random = SeededRandom(seed: 1)
        for attempt in 1...20 {
            let pause = policy.pause(after: attempt, asked: nil, random: random)
            let full = min(policy.pauseFirst * (1 << min(attempt - 1, 16)), policy.pauseMax)
            #expect(pause >= full / 2 && pause <= full)
        }
        #expect(policy.pause(after: 1, asked: 3, random: random) == .seconds(3))
        #expect(policy.pause(after: 1, asked: 600, random: random) == policy.pauseMax)
    }

    // MARK: errors

    struct FaultForm: Sendable, CustomTestStringConvertible {
        let body: JSONValue
        let message: String
        var type: String?
        var testDescription: String { body.description }
    }

    static let faults: [FaultForm] = [
        FaultForm(
            body: ["itemNotFound": ["code": 404, "message": "Instance x could not be found."]], message: "Instance x could not be found."),
        FaultForm(
            body: ["NeutronError": ["type": "NetworkNotFound", "message": "Network x could not be found.", "detail": ""]],
            message: "Network x could not be found.", type: "NetworkNotFound"),
        FaultForm(
            body: ["error": ["code": 404, "title": "Not Found", "message": "Could not find user: x."]], message: "Could not find user: x."),
        FaultForm(
            body: [
                "errors": [["status": 404, "title": "Not Found", "detail": "No resource provider x.", "code": "placement.undefined_code"]]
            ],
            message: "No resource provider x.", type: "placement.undefined_code"),
        FaultForm(body: ["message": "No image found with ID x"], message: "No image found with ID x"),
        FaultForm(body: ["faultcode": "Client", "faultstring": "Node x"], message: "Node x"),
    ]

    @Test(arguments: faults) func everyServicesFaultIsRead(fault: FaultForm) async throws {
        let cloud = try StubCloud { _, _ in .json(404, fault.body, headers: [("x-openstack-request-id", "req-1")]) }
        let error = await #expect(throws: ResourceError.self) { _ = try await cloud.client().get(.compute, "/x") }
        #expect(error?.code == .notFound)
        #expect(error?.message == fault.message)
        #expect(error?.type == fault.type)
        #expect(error?.context?.contains("req-1") == true)
    }

    @Test func pagesOfHTMLBecomeText() async throws {
        let page = "<html><head><title>404 Not Found</title></head><body><h1>404 Not Found</h1>No image found</body></html>"
        let cloud = try StubCloud { _, _ in .bytes(404, Array(page.utf8), type: "text/html") }
        let error = await #expect(throws: ResourceError.self) { _ = try await cloud.client().get(.image, "/images/x") }
        #expect(error?.message == "404 Not Found 404 Not Found No image found")
    }

    @Test func brokenJSONIsAnError() async throws {
        let cloud = try StubCloud { _, _ in .bytes(200, Array("{\"a\":".utf8), type: "application/json") }
        let error = await #expect(throws: ResourceError.self) { _ = try await cloud.client().get(.compute, "/x") }
        #expect(error?.code == .unavailable)
    }

    @Test func missingResourcesCanCountAsDeleted() async throws {
        let cloud = try StubCloud { _, _ in .json(404, ["itemNotFound": ["message": "gone"]]) }
        try await cloud.client().delete(.compute, "/servers/x", missingIsFine: true)
        await #expect(throws: ResourceError.self) { try await cloud.client().delete(.compute, "/servers/x") }
    }

    // MARK: lists

    @Test func pagesAreFollowedInEveryForm() async throws {
        let forms: [@Sendable (String) -> (String, JSONValue)] = [
            { ("servers_links", [["rel": "next", "href": .string("http://elsewhere/v2.1/servers?" + $0)]]) },
            { ("next", .string("/v2/images?" + $0)) },
            { ("links", ["next": .string("http://elsewhere/v3/users?" + $0)]) },
        ]
        for form in forms {
            let cloud = try StubCloud { request, _ in
                if request.query.contains("marker=b") { return .json(200, ["servers": [["id": "c"]]]) }
                let (name, value) = form("limit=2&marker=b")
                return .json(200, .object(["servers": [["id": "a"], ["id": "b"]], name: value]))
            }
            let list = try await cloud.client().list(service: .compute, path: "/servers", key: "servers", query: [("limit", "2")])
            #expect(list.compactMap { $0["id"]?.stringValue } == ["a", "b", "c"])
        }
    }

    @Test func aLimitEndsTheList() async throws {
        let cloud = try StubCloud { _, _ in
            .json(200, ["servers": [["id": "a"], ["id": "b"]], "servers_links": [["rel": "next", "href": "http://x/servers?marker=b"]]])
        }
        #expect(try await cloud.client().list(service: .compute, path: "/servers", key: "servers", limit: 3).count == 3)
        #expect(cloud.server.lines.count == 3)
    }

    // MARK: streams

    @Test func downloadsArriveInPieces() async throws {
        let content = (0..<300_000).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        let cloud = try StubCloud { _, _ in .bytes(200, content) }
        let download = try await cloud.client().download(service: .image, path: "/images/x/file")
        #expect(download.length == 300_000)
        var received: [UInt8] = []
        for try await chunk in download.body { received += chunk.readableBytesView }
        #expect(received == content)
    }

    @Test func aDownloadThatBreaksOffIsAnError() async throws {
        let cloud = try StubCloud { _, _ in StubServer.Answer.bytes(200, [UInt8](repeating: 1, count: 100_000)).broken(after: 50_000) }
        let download = try await cloud.client().download(service: .image, path: "/images/x/file")
        await #expect(throws: ResourceError.self) { for try await _ in download.body {} }
    }

    @Test func uploadsAreSentAgainWithANewToken() async throws {
        let cloud = try StubCloud { request, _ in request.headers["x-auth-token"] == "token-1" ? .empty(401) : .empty(204) }
        let pieces = (0..<5).map { ByteBuffer(repeating: UInt8($0), count: 70_000) }
        let response = try await cloud.client().upload(service: .image, path: "/images/x/file", length: 350_000) {
            AsyncStream { continuation in
                for piece in pieces { continuation.yield(piece) }
                continuation.finish()
            }
        }
        #expect(response.status == 204)
        let request = try #require(cloud.server.requests.last)
        #expect(request.body.count == 350_000)
        #expect(request.headers["content-type"] == "application/octet-stream")
    }

    @Test func uploadsOfUnknownLengthAreChunked() async throws {
        let cloud = try StubCloud { _, _ in .empty(204) }
        _ = try await cloud.client().upload(service: .image, path: "/images/x/file", length: nil) {
            AsyncStream { continuation in
                continuation.yield(ByteBuffer(string: "abc"))
                continuation.finish()
            }
        }
        #expect(cloud.server.requests.last?.body == Array("abc".utf8))
    }
}
