import Client
import ImageCore
import ImageService
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import WebAPI

/// Rules that allow a server of a test.
enum DownloadSample {
    static func limits(_ urls: String..., networks: [String] = ["127.0.0.1/32"], bytes: Int = 1 << 30) -> ImageServiceLimits {
        var rules = PublicDownload.Rules()
        rules.ports.formUnion(urls.compactMap { $0.split(separator: ":").last.flatMap { Int($0) } })
        rules.addresses = PublicAddresses(allowing: networks.compactMap { IPNetwork($0) })
        rules.redirectsMax = 3
        return ImageServiceLimits(uploadBytesMax: bytes, download: rules)
    }

    static func port(_ url: String) -> String { String(url.split(separator: ":").last ?? "") }
}

/// Images from the web, and addresses that a user's URL must not reach.
@Suite struct ImageDownloadTests {
    private func run(_ cloud: ImageFixture, _ uri: String) async throws -> (status: String?, task: JSONValue) {
        let id = try await cloud.create()
        let answer = try await cloud.beginImport(id, "web-download", uri: uri)
        #expect(answer.status == 202, "\(uri) \(answer.json)")
        try await cloud.settle()
        return (try await cloud.status(id), try await cloud.task(id))
    }

    @Test func anImageIsDownloaded() async throws {
        let bytes = Array(repeating: UInt8(5), count: 3 << 20)
        let server = try StubServer { request in
            switch request.path {
            case "/a": .empty(302, headers: [("location", "b?x=1")])
            case "/b": .empty(301, headers: [("location", "//127.0.0.1:\(request.headers["host"]?.split(separator: ":").last ?? "")/c")])
            case "/c": .bytes(200, bytes)
            case "/loop": .empty(302, headers: [("location", "/loop")])
            case "/cut": .bytes(200, bytes).broken(after: 1000)
            default: .empty(404)
            }
        }
        defer { server.stop() }
        try await ImageFixture.with(limits: DownloadSample.limits(server.url)) { (cloud: ImageFixture) async throws -> Void in
            let (status, task) = try await run(cloud, server.url + "/a")
            #expect(status == "active" && task["status"] == "success", "\(task)")
            #expect(server.lines == ["GET /a", "GET /b?x=1", "GET /c"])
            // No token or cookie is sent.
            #expect(server.requests.allSatisfy { $0.headers["x-auth-token"] == nil && $0.headers["authorization"] == nil })
            for (path, reason) in [("/loop", "redirects more than 3 times"), ("/cut", "could not be"), ("/none", "answered 404")] {
                let (status, task) = try await run(cloud, server.url + path)
                #expect(status == "queued" && task["status"] == "failure")
                #expect(task["message"]?.stringValue?.contains(reason) == true, "\(task)")
            }
            try await cloud.cleanupTask.runOnce()
            #expect(cloud.stored.count == 1)
        }
        try await ImageFixture.with(limits: DownloadSample.limits(server.url, bytes: 1 << 20)) {
            (cloud: ImageFixture) async throws -> Void in
            let (status, task) = try await run(cloud, server.url + "/c")
            #expect(status == "queued" && task["message"]?.stringValue?.contains("larger than") == true, "\(task)")
        }
    }

    @Test(
        "S13: forms of addresses of the cloud's own networks are refused",
        arguments: [
            "http://127.0.0.1/", "http://127.1/", "http://2130706433/", "http://0x7f000001/", "http://017700000001/", "http://localhost/",
            "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://[::ffff:7f00:1]/", "http://[fe80::1]/", "http://[fd00::1]/",
            "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/", "http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/",
            "http://172.16.0.1/", "http://192.168.0.1/", "http://100.64.0.1/", "http://0.0.0.0/", "http://224.0.0.1/",
            "http://255.255.255.255/",
        ])
    func s13AddressesOfOwnNetworks(_ uri: String) async throws {
        let download = PublicDownload(PublicDownload.Rules(), ambient: Ambient())
        let refusal = await #expect(throws: DownloadRefusal.self) { try await download.download(uri, bytesMax: 1000) { _ in } }
        // Refused by the rule, and not because nothing answers at the address.
        #expect(refusal?.reason.contains("not public") == true, "\(refusal?.reason ?? "")")
    }

    @Test(
        "S13: URLs that parsers read differently, other schemes and ports are refused before anything is accepted",
        arguments: [
            "file:///etc/passwd", "ftp://example.com/x", "gopher://example.com/", "http:/example.com/", "http://user@example.com/",
            "http://example.com@127.0.0.1/", "http://example.com:22/", "http://example.com:0/", "http://example.com:80:80/", "http://",
            "http://exa mple.com/", "http://example.com\\@127.0.0.1/", "http://example.com/\r\nHost: x", "http://exämple.com/",
            "http://[::1%25lo]/", "http://[127.0.0.1]/", "//example.com/", "example.com/x", "http://example..com/", "http://127.0.0.1/x",
        ])
    func s13MalformedURLs(_ uri: String) async throws {
        try await ImageFixture.with { (cloud: ImageFixture) async throws -> Void in
            let id = try await cloud.create()
            let answer = try await cloud.beginImport(id, "web-download", uri: uri)
            #expect(answer.status == 400, "\(answer.status)")
            #expect(try await cloud.status(id) == "queued")
        }
    }

    @Test("S13: redirects follow the same rules, and never reach what is not allowed") func s13Redirects() async throws {
        let canary = try StubServer { _ in .bytes(200, Array("secret".utf8)) }
        let port = DownloadSample.port(canary.url)
        let targets = [
            ("http://127.0.0.2:\(port)/", "not public"), ("http://localhost:\(port)/", "not public"),
            ("http://[::1]:\(port)/", "not public"), ("http://[::ffff:127.0.0.2]:\(port)/", "not public"),
            ("//127.0.0.2:\(port)/", "not public"), ("http://169.254.169.254/", "not public"), ("file:///etc/passwd", "scheme"),
            ("http://127.0.0.1:1/", "port"), ("http://x@127.0.0.1:\(port)/", "user name"), ("gopher://127.0.0.1/", "scheme"),
        ]
        let server = try StubServer { .empty(302, headers: [("location", targets[Int($0.path.dropFirst()) ?? 0].0)]) }
        defer {
            canary.stop()
            server.stop()
        }
        // The canary's port is allowed, but only the address of the first server.
        let limits = DownloadSample.limits(server.url, canary.url)
        let resolve: PublicDownload.Resolve = { _ in [IPAddress("127.0.0.2")].compactMap { $0 } }
        try await ImageFixture.with(limits: limits, resolve: resolve) { (cloud: ImageFixture) async throws -> Void in
            for (index, (target, rule)) in targets.enumerated() {
                let (status, task) = try await run(cloud, "\(server.url)/\(index)")
                #expect(status == "queued" && task["status"] == "failure", "\(target)")
                // Refused by the rule, and not because nothing answers at the address.
                #expect(task["message"]?.stringValue?.contains(rule) == true, "\(target): \(task)")
            }
            #expect(canary.requests.isEmpty)
        }
    }

    @Test("S13: a name is resolved once, all its addresses must be public, and the connection goes to the one that was checked")
    func s13NamesAreResolvedOnce() async throws {
        let server = try StubServer { _ in .bytes(200, [1, 2, 3]) }
        defer { server.stop() }
        let port = DownloadSample.port(server.url)
        let asked = Mutex<[String]>([])
        let resolve: PublicDownload.Resolve = { host in
            let count = asked.withLock { names in
                names.append(host)
                return names.count { $0 == host }
            }
            return switch host {
            // The second answer would be another address.
            case "rebind.example": [IPAddress(count == 1 ? "127.0.0.1" : "127.0.0.9")].compactMap { $0 }
            case "mixed.example": [IPAddress("127.0.0.1"), IPAddress("10.0.0.1")].compactMap { $0 }
            case "inside.example": [IPAddress("10.0.0.1")].compactMap { $0 }
            default: []
            }
        }
        try await ImageFixture.with(limits: DownloadSample.limits(server.url), resolve: resolve) {
            (cloud: ImageFixture) async throws -> Void in
            let (status, task) = try await run(cloud, "http://rebind.example:\(port)/x")
            #expect(status == "active", "\(task)")
            #expect(asked.withLock { $0 } == ["rebind.example"])
            #expect(server.requests.first?.headers["host"] == "rebind.example:\(port)")
            for (host, reason) in [("mixed", "not public"), ("inside", "not public"), ("none", "not known")] {
                let (status, task) = try await run(cloud, "http://\(host).example:\(port)/x")
                #expect(status == "queued" && task["message"]?.stringValue?.contains(reason) == true, "\(host): \(task)")
            }
            #expect(server.requests.count == 1)
        }
    }

    @Test("S13: addresses are public, or in a network that the operator allows") func s13PublicAddresses() {
        let none = PublicAddresses()
        for text in ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "::ffff:8.8.8.8", "172.32.0.1", "100.128.0.1"] {
            #expect(IPAddress(text).map(none.permits) == true, "\(text)")
        }
        // The first and last addresses of reserved networks.
        for text in [
            "0.0.0.0", "0.255.255.255", "10.0.0.0", "10.255.255.255", "100.64.0.0", "100.127.255.255", "127.0.0.1", "127.255.255.255",
            "169.254.0.1", "169.254.169.254", "172.16.0.0", "172.31.255.255", "192.0.0.8", "192.0.2.1", "192.88.99.1", "192.168.0.0",
            "192.168.255.255", "198.18.0.0", "198.19.255.255", "198.51.100.1", "203.0.113.255", "224.0.0.1", "239.255.255.255",
            "240.0.0.1", "255.255.255.255", "::", "::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "64:ff9b::a00:1",
            "100::1", "2001::1", "2001:db8::1", "2002:a00:1::", "3fff::1", "fc00::1", "fdff::1", "fe80::1", "febf::1", "ff02::1",
        ] {
            #expect(IPAddress(text).map(none.permits) == false, "\(text)")
        }
        let some = PublicAddresses(allowing: [IPNetwork("10.1.0.0/16"), IPNetwork("fd00:1::/32")].compactMap { $0 })
        for (text, isPermitted) in [
            ("10.1.2.3", true), ("::ffff:10.1.2.3", true), ("10.2.0.1", false), ("fd00:1::5", true), ("fd00:2::5", false),
        ] {
            #expect(IPAddress(text).map(some.permits) == isPermitted, "\(text)")
        }
    }
}
