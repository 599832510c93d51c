package import Kernel
package import ServiceCatalog
import Yams

/// The problems of the configuration, described for the operator, one per line.
package struct SettingsError: Error, CustomStringConvertible, Sendable {
    package let problems: [String]

    package init(_ problems: [String]) { self.problems = problems }

    package var description: String { problems.joined(separator: "\n") }
}

/// The checked configuration of one executable: file, then environment (`WOLKE_<SECTION>_<KEY>`), then defaults.
package struct Settings: Sendable {
    private let schema: SettingsSchema
    private let values: [String: SettingsValue]

    /// Reads and checks the file and the environment against `schema`.
    ///
    /// Sections of other executables are ignored. An unknown section, or an undeclared key in a section that `schema` declares
    /// completely, is an error that names it and the most similar known name.
    ///
    /// - Parameter path: the YAML file; nil for environment and defaults only.
    /// - Throws: `SettingsError` with all problems.
    package static func load(path: String?, environment: [String: String], schema: SettingsSchema) throws -> Settings {
        let text = try path.map { try TextFile.read($0) } ?? ""
        return try parse(text, name: path ?? "(no file)", environment: environment, schema: schema)
    }

    /// Like `load`, with the file's content; `name` is used in messages.
    package static func parse(
        _ text: String, name: String, environment: [String: String], schema: SettingsSchema
    ) throws -> Settings {
        var reader = SettingsReader(schema: schema, file: name)
        reader.readFile(text)
        reader.readEnvironment(environment)
        reader.fillAndCheck()
        guard reader.problems.isEmpty else { throw SettingsError(reader.problems) }
        return Settings(schema: schema, values: reader.values)
    }

    /// The text at `section.key`.
    ///
    /// Reading a key that was not declared, or was declared with another kind, is a programming error and stops the process.
    package func string(_ path: String) -> String {
        guard let text = optionalString(path) else {
            preconditionFailure("no value for setting \(path): declare a default or read optionalString")
        }
        return text
    }

    /// The text at `section.key`, or nil if there is neither a value nor a default.
    package func optionalString(_ path: String) -> String? {
        switch value(path) {
        case .text(let text)?: text
        case nil: nil
        default: preconditionFailure("setting \(path) is not a text")
        }
    }

    /// The whole number at `section.key`.
    package func integer(_ path: String) -> Int {
        guard case .integer(let number)? = value(path) else { preconditionFailure("setting \(path) is not an integer") }
        return number
    }

    /// The boolean at `section.key`.
    package func boolean(_ path: String) -> Bool {
        guard case .boolean(let flag)? = value(path) else { preconditionFailure("setting \(path) is not a boolean") }
        return flag
    }

    /// The duration at `section.key`.
    package func duration(_ path: String) -> Duration {
        guard case .duration(let duration)? = value(path) else { preconditionFailure("setting \(path) is not a duration") }
        return duration
    }

    /// The texts at `section.key`.
    package func list(_ path: String) -> [String] {
        guard case .list(let list)? = value(path) else { preconditionFailure("setting \(path) is not a list") }
        return list
    }

    /// A secret, from `section.key` or the file that `section.key_file` names; nil when neither is given.
    package func secret(_ path: String) -> Secret<String>? {
        switch value(path) {
        case .secret(let secret)?: secret
        case nil: nil
        default: preconditionFailure("setting \(path) is not a secret")
        }
    }

    /// A secret that is declared as required.
    package func requiredSecret(_ path: String) -> Secret<String> {
        guard let secret = secret(path) else { preconditionFailure("setting \(path) is not declared as required") }
        return secret
    }

    private func value(_ path: String) -> SettingsValue? {
        precondition(schema.key(path) != nil, "setting \(path) is not declared")
        return values[path]
    }
}

extension Settings {
    /// Public base URL of a service's API without a trailing slash, for example `http://127.0.0.1:5000`.
    ///
    package func endpoint(_ service: CloudService) -> String {
        if let url = optionalString("endpoints.\(service.section)_url") {
            return url.hasSuffix("/") ? String(url.dropLast()) : url
        }
        return "http://" + address(service)
    }

    /// `host:port` of a service as this machine reaches it without a proxy.
    package func address(_ service: CloudService) -> String {
        let host = string("endpoints.public_host")
        return "\(host.contains(":") ? "[\(host)]" : host):\(integer("endpoints.\(service.section)_port"))"
    }

    /// The base URLs of all services, for a client of them.
    package var endpoints: [CloudService: String] {
        Dictionary(uniqueKeysWithValues: CloudService.all.map { ($0, endpoint($0)) })
    }
}

/// A value after checking.
enum SettingsValue: Sendable {
    case text(String)
    case integer(Int)
    case boolean(Bool)
    case duration(Duration)
    case list([String])
    case secret(Secret<String>)
}
