import Authorization
import Database
import ImageAccess
import ImageCore
import JSON
import Kernel
import Logging
import WebAPI

extension ImageHandlers {
    var fileResource: Resource {
        Resource(
            "image data",
            routes: [
                Route(
                    .put, "/v2/images/{image_id}/file", action: "upload_image", rule: ImageRules.rule("upload_image"), body: .stream,
                    status: 204, "Upload the data", handler: upload),
                Route(
                    .get, "/v2/images/{image_id}/file", action: "download_image", rule: ImageRules.rule("download_image"),
                    "Download the data", handler: download),
            ])
    }

    // MARK: upload

    private struct Plan: Sendable {
        let declared: DiskFormat?
        let bytesMax: Int
        let tooLarge: ResourceError
    }

    /// - Throws: 415 for another media type than `application/octet-stream`.
    func requireOctets(_ context: RequestContext) throws {
        let type = context.headers["content-type"]?.split(separator: ";").first.map { $0.lowercased() } ?? ""
        guard type == "application/octet-stream" else {
            throw ResourceError(.unsupportedMediaType, "The media type must be application/octet-stream.")
        }
    }

    private func upload(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let plan = try await database.read { connection -> Plan in
            let image = try authorized(connection, context, id, locked: false).value(for: "upload_image")
            try requireOctets(context)
            return try self.plan(connection, image)
        }
        let store = try store(context)
        let expected = try expectedSize(context)
        if let expected, expected > plan.bytesMax { throw plan.tooLarge }
        let file = try await store.driver.receive(context.ambient.newUUID().description)
        do {
            let image = try await database.write { connection in
                let image = try authorized(connection, context, id)
                _ = try self.plan(connection, image.value)
                try ImageStore.beginUpload(connection, image, upload: file.id, now: context.ambient.now)
                return image
            }
            let inspector = ContentInspector(declared: plan.declared, sizeMax: plan.bytesMax, tooLarge: plan.tooLarge)
            let content = try await store.driver.take(context.stream, into: file, inspector, expected: expected)
            let response = try await finish(context, image, file.id, content, store.name)
            file.release()
            return response
        } catch {
            await abandon(file, store.driver, context.ambient, context.log)
            throw error
        }
    }

    /// The store that the request names; the default store if it names none.
    ///
    /// - Throws: 400 for an unknown store.
    func store(_ context: RequestContext) throws -> NamedStore {
        guard let name = context.headers["x-image-meta-store"] else { return stores.defaultStore }
        guard let store = stores.all.first(where: { $0.name == name }) else {
            throw ResourceError.badRequest(
                "Invalid value for header x-image-meta-store: '\(name.prefix(64))'. It must be \(storeNames.joined(separator: ", ")).")
        }
        return store
    }

    /// The size of the data according to the client; nil if unknown.
    ///
    /// - Throws: 400 for invalid or differing sizes.
    func expectedSize(_ context: RequestContext) throws -> Int? {
        let length = context.headers["content-length"].flatMap { Int($0) }
        guard let text = context.headers["x-openstack-image-size"] else { return length }
        guard let size = Int(text), size >= 0, length ?? size == size else {
            throw ResourceError.badRequest(
                "Invalid value for header x-openstack-image-size: '\(text.prefix(64))'. It must be the number of bytes of the data.")
        }
        return size
    }

    /// - Throws: 409 if the image cannot receive data in its state, 400 if required attributes are missing.
    private func plan(_ connection: Connection, _ image: Image) throws -> Plan {
        guard image.status.after(.upload) != nil else {
            throw ResourceError.conflict("Image status transition from \(image.status.rawValue) to saving is not allowed")
        }
        guard let disk = image.diskFormat, let container = image.containerFormat else {
            throw ResourceError.badRequest("Properties disk_format, container_format must be set prior to saving data.")
        }
        let limit = quota.limit(remaining: try quota.remaining(connection, project: image.owner), uploadBytesMax: limits.uploadBytesMax)
        return Plan(declared: container.holdsBareDisk ? disk : nil, bytesMax: limit.bytes, tooLarge: limit.error)
    }

    private func finish(
        _ context: RequestContext, _ image: Authorized<Image>, _ upload: String, _ content: ReceivedContent, _ store: String
    ) async throws -> Response {
        let id = image.value.id.text
        return try await context.write(database) { connection in
            guard
                let owner = try ImageStore.finishUpload(
                    connection, image, upload: upload, content, store: store, now: context.ambient.now)
            else { throw ResourceError(.gone, "The image \(id) was deleted while its data was uploaded.") }
            try quota.quota.reserve(
                connection, project: owner, [(ImageQuotas.size, ImageQuota.mebibytes(content.size))])
            return Change(
                .empty(), "image", id,
                content: ["status": "active", "size": JSONValue(content.size), "os_hash_value": .string(content.hashValue)])
        }
    }

    /// Resets the image to queued without data, even if the request was cancelled.
    private func abandon(_ file: any IncomingData, _ driver: any ImageStoreDriver, _ ambient: Ambient, _ log: Logger) async {
        let database = database
        await Task {
            do {
                try await database.write { try ImageStore.abandonUpload($0, upload: file.id, now: ambient.now) }
                let known = try await database.read { try ImageStore.known($0, [file.id]) }
                // If the response to the commit was lost, the commit may have succeeded.
                if known.isEmpty { try await driver.threads.run { try file.discard() } } else { file.release() }
            } catch {
                file.release()
                log.warning("an upload is left for the cleanup task", metadata: ["file": "\(file.id)", "error": "\(error)"])
            }
        }.value
    }

    // MARK: download

    private func open(_ image: Image) async throws -> (data: any StoredData, driver: any ImageStoreDriver) {
        if let cache, let data = await cache.open(image) { return (data, cache.files) }
        return try await stores.open(image)
    }

    private func download(_ context: RequestContext) async throws -> Response {
        let id = try id(context)
        let image = try await database.read { connection in
            try authorized(connection, context, id, locked: false).value
        }
        guard image.fileID != nil else { return .empty() }
        if image.status == .deactivated, !context.allows("download_deactivated_image") {
            throw ResourceError.forbidden("The requested image has been deactivated. Image data download is forbidden.")
        }
        let (file, driver) = try await open(image)
        var headers: Headers = ["content-type": "application/octet-stream", "accept-ranges": "bytes"]
        var range = 0..<file.size
        var status = 200
        if let asked = context.headers["range"] {
            do {
                if let part = try ByteRange.parse(asked, size: file.size) {
                    range = part.range
                    status = 206
                    headers["content-range"] = "bytes \(range.lowerBound)-\(range.upperBound - 1)/\(file.size)"
                }
            } catch {
                throw ResourceError(
                    .rangeNotSatisfiable, "The range '\(asked.prefix(64))' is outside of the \(file.size) bytes of the data.")
            }
        }
        if status == 200 { headers["content-md5"] = image.checksum }
        let bytes = range
        return Response(
            status: status, headers: headers,
            body: .stream(length: bytes.count) { sink in
                var offset = bytes.lowerBound
                while offset < bytes.upperBound {
                    let start = offset
                    let count = min(FileStore.chunkBytes, bytes.upperBound - start)
                    let chunk = try await driver.threads.run { try file.read(start, count) }
                    try await sink.write(chunk)
                    offset += count
                }
            })
    }
}
