import Kernel

/// Converts services' errors to failures with advice.
enum APIErrors {
    static func translated<Answer>(_ api: CloudAPI, _ body: () async throws -> Answer) async throws -> Answer {
        do {
            return try await body()
        } catch let error as ResourceError {
            throw CommandFailure(error, source: api.source, showsContext: api.isDebugging)
        }
    }
}
