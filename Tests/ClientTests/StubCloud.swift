import Client
import JSON
import Kernel
import Synchronization
import TestKit

/// Identity and one more service in one stub; it counts issued tokens.
final class StubCloud: Sendable {
    let server: StubServer
    private let counter: Counter

    final class Counter: Sendable {
        private let count = Mutex(0)
        @discardableResult func next() -> Int {
            count.withLock { count in
                count += 1
                return count
            }
        }
        var value: Int { count.withLock { $0 } }
    }

    /// - Parameters:
    ///   - lifetime: of a token, by the real clock, which the client under test also uses.
    ///   - handler: answers everything but the sign-on; the number is the count of requests with that line, from 1.
    init(lifetime: Duration = .seconds(3600), _ handler: @escaping @Sendable (StubServer.Request, Int) -> StubServer.Answer) throws {
        let counter = Counter()
        let asked = Mutex<[String: Int]>([:])
        let address = Mutex("")
        server = try StubServer { request in
            if request.path == "/v3/auth/tokens" {
                let number = counter.next()
                let expiry = (SystemTime().now() + lifetime).iso8601Microseconds
                return .json(201, StubCloud.token(expiry, address.withLock { $0 }), headers: [("x-subject-token", "token-\(number)")])
            }
            let number = asked.withLock { asked in
                asked[request.line, default: 0] += 1
                return asked[request.line] ?? 0
            }
            return handler(request, number)
        }
        self.counter = counter
        let url = server.url
        address.withLock { $0 = url }
    }

    var signOns: Int { counter.value }

    static func token(_ expiry: String, _ url: String) -> JSONValue {
        func service(_ type: String, _ path: String) -> JSONValue {
            [
                "type": .string(type), "name": .string(type),
                "endpoints": [["interface": "public", "region_id": "RegionOne", "region": "RegionOne", "url": .string(url + path)]],
            ]
        }
        return [
            "token": [
                "expires_at": .string(expiry), "user": ["id": "u1", "name": "demo"], "project": ["id": "p1", "name": "demo"],
                "roles": [["id": "r1", "name": "member"]],
                "catalog": [
                    service("compute", "/compute/v2.1"), service("network", "/network"), service("image", "/image"),
                    service("volumev3", "/volume/v3/p1"),
                ],
            ]
        ]
    }

    func configuration(user: String = "demo") -> CloudConfiguration {
        CloudConfiguration(
            name: "stub", authURL: server.url + "/v3",
            credentials: .password(user: .name(user, domain: .id("default")), password: Secret("secret")),
            scope: .project(.name("demo", domain: .id("default"))))
    }

    func client(_ ambient: Ambient = Ambient(), cache: (any TokenCache)? = nil) -> RESTClient {
        var retry = RetryPolicy()
        retry.pauseFirst = .milliseconds(1)
        retry.pauseMax = .milliseconds(5)
        return RESTClient(configuration(), ambient: ambient, retry: retry, cache: cache)
    }
}
