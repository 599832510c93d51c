import Client
import Glibc
import JSON
import Kernel

/// Caches a token with its catalog below ~/.cache/osctl, readable only by its owner, so that a command needs one request.
struct TokenFile: TokenCache {
    let path: String

    /// - Returns: nil if there is no home directory.
    init?(_ configuration: CloudConfiguration, environment: [String: String]) {
        let base =
            environment["XDG_CACHE_HOME"].flatMap { $0.isEmpty ? nil : $0 }
            ?? environment["HOME"].flatMap { $0.isEmpty ? nil : $0 + "/.cache" }
        guard let base else { return nil }
        path = base + "/osctl/" + TokenFile.key(configuration) + ".json"
    }

    init(path: String) { self.path = path }

    /// The file's name, derived from the cloud and everything else that selects a token, without secrets.
    static func key(_ configuration: CloudConfiguration) -> String {
        let user =
            switch configuration.credentials {
            case .password(let user, _): "password \(user)"
            case .applicationCredential(let id, _): "credential \(id)"
            case .namedApplicationCredential(let name, let user, _): "credential \(name) \(user)"
            case .token(let token): "token \(hash(token.exposed))"
            }
        let name = configuration.name.map { $0.isASCII && ($0.isLetter || $0.isNumber || $0 == "-") ? $0 : "_" }
        let all = "\(configuration.name)\n\(configuration.authURL)\n\(user)\n\(configuration.scope)"
        return String(name.prefix(64)) + "-" + hash(all)
    }

    /// FNV-1a, 64 bits.
    private static func hash(_ text: String) -> String {
        var hash: UInt64 = 0xcbf2_9ce4_8422_2325
        for byte in text.utf8 { hash = (hash ^ UInt64(byte)) &* 0x100_0000_01b3 }
        return Hexadecimal.encode((0..<8).map { UInt8(truncatingIfNeeded: hash >> (56 - 8 * $0)) })
    }

    func load() -> CloudToken? {
        var information = stat()
        guard lstat(path, &information) == 0, information.st_mode & S_IFMT == S_IFREG,
            information.st_uid == geteuid(), information.st_mode & 0o077 == 0, let bytes = Machine.read(path)
        else { return nil }
        do throws(JSONParseError) {
            let value = try JSONValue.parse(bytes)
            guard let secret = value["secret"]?.stringValue, let document = value["token"] else { return nil }
            return CloudToken(secret: Secret(secret), document: document)
        } catch {
            return nil
        }
    }

    func store(_ token: CloudToken) {
        let directory = path.split(separator: "/").dropLast().joined(separator: "/")
        let content: JSONValue = ["secret": .string(token.secret.exposed), "token": token.document]
        do {
            try Machine.makeDirectory("/" + directory, mode: 0o700)
            try Machine.write(path, content.description + "\n", mode: 0o600)
        } catch {
            Machine.write(to: 2, "The token is not cached: \(error)\n")
        }
    }

    func remove() { unlink(path) }
}
