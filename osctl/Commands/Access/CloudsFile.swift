import Glibc
import JSON
import Yams

/// Reads clouds.yaml and secure.yaml. Scalars stay text, because a password of digits is not a number.
enum CloudsFile {
    /// - Throws: `CommandFailure` naming the file and the error in it.
    static func parse(_ text: String, path: String) throws -> JSONValue {
        do {
            guard let node = try Yams.compose(yaml: text) else { return .object([:]) }
            return try value(node)
        } catch let error as CommandFailure {
            throw CommandFailure("\(path): \(error.message)")
        } catch {
            throw CommandFailure("\(path) is not valid YAML: \(error)")
        }
    }

    private static func value(_ node: Node) throws -> JSONValue {
        switch node {
        case .scalar(let scalar):
            let isPlain = scalar.style == .plain || scalar.style == .any
            return isPlain && ["", "~", "null"].contains(scalar.string) ? .null : .string(scalar.string)
        case .sequence(let sequence): return .array(try sequence.map { try value($0) })
        case .mapping(let mapping):
            var object = JSONObject()
            for (key, member) in mapping {
                guard let name = key.scalar?.string else { throw CommandFailure("a key is not a text") }
                object[name] = try value(member)
            }
            return .object(object)
        case .alias: throw CommandFailure("an alias refers to an unknown anchor")
        }
    }

    /// Merges `over` into `base`, member by member.
    static func merge(_ base: JSONValue, _ over: JSONValue) -> JSONValue {
        guard var object = base.objectValue, let above = over.objectValue else { return over }
        for member in above.members {
            object[member.name] = object[member.name].map { merge($0, member.value) } ?? member.value
        }
        return .object(object)
    }
}

/// Access to configuration files; tests provide their own.
struct ConfigurationFiles: Sendable {
    /// The directories, in search order.
    let directories: [String]
    /// The text of a file; nil if it does not exist.
    let read: @Sendable (String) -> String?

    static func standard(_ environment: [String: String]) -> ConfigurationFiles {
        let home = environment["HOME"] ?? ""
        let user = environment["XDG_CONFIG_HOME"].flatMap { $0.isEmpty ? nil : $0 } ?? home + "/.config"
        return ConfigurationFiles(directories: [".", user + "/openstack", "/etc/openstack"]) { Machine.readText($0) }
    }

    /// The first file that exists.
    func first(_ names: [String]) -> (path: String, text: String)? {
        for directory in directories {
            for name in names {
                let path = directory == "." ? name : directory + "/" + name
                if let text = read(path) { return (path, text) }
            }
        }
        return nil
    }
}
