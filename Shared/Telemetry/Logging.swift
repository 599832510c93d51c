import Glibc
import JSON
package import Kernel
package import Logging
import Synchronization

/// Writes log records as JSON lines to standard error: one object per line, times in UTC.
package struct JSONLogHandler: LogHandler {
    package var metadata: Logger.Metadata = [:]
    package var logLevel: Logger.Level
    private let label: String
    private let time: any TimeSource

    package init(label: String, level: Logger.Level, time: any TimeSource) {
        self.label = label
        self.logLevel = level
        self.time = time
    }

    package subscript(metadataKey key: String) -> Logger.Metadata.Value? {
        get { metadata[key] }
        set { metadata[key] = newValue }
    }

    package func log(event: LogEvent) {
        var writer = JSONWriter(capacity: 256)
        writer.object {
            $0.field("time", time.now().iso8601Microseconds)
            $0.field("level", event.level.rawValue)
            $0.field("service", label)
            if let id = RequestScope.current { $0.field("request_id", id) }
            $0.field("message", event.message.description)
            for (name, value) in metadata.merging(event.metadata ?? [:], uniquingKeysWith: { $1 }) {
                $0.field(name, value.description)
            }
        }
        let line = writer.bytes + [UInt8(ascii: "\n")]
        line.withUnsafeBytes { bytes in
            // The kernel writes a line up to PIPE_BUF atomically.
            var offset = 0
            while offset < bytes.count {
                let count = Glibc.write(2, bytes.baseAddress! + offset, bytes.count - offset)
                if count <= 0 { return }
                offset += count
            }
        }
    }
}

/// The id of the request that the current task works for; every log record contains it.
package enum RequestScope {
    @TaskLocal package static var current: String?
}

/// Configures logging of the process.
package enum Telemetry {
    /// - Parameter level: one of swift-log's level names; any other value means `info`.
    package static func logger(service: String, level: String, time: any TimeSource = SystemTime()) -> Logger {
        let level = Logger.Level(rawValue: level) ?? .info
        return Logger(label: service) { JSONLogHandler(label: $0, level: level, time: time) }
    }
}
