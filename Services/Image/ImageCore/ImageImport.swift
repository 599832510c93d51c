package import JSON
import Kernel

/// A request to import an image's data, as Glance's clients send it.
package struct ImageImport: Sendable, Hashable {
    /// The source of the data.
    package enum Method: String, Sendable, CaseIterable {
        /// Staged by the client.
        case direct = "glance-direct"
        /// From the Web, by this service.
        case download = "web-download"
        /// Copied from a store that has it to other stores.
        case copy = "copy-image"
    }

    package let method: Method
    /// For `web-download`.
    package let uri: String?
    package let stores: [String]
    /// Whether a store without the data fails the import; otherwise one store is enough.
    package let allStoresMustSucceed: Bool
    package let isForAllStores: Bool

    /// The stores that a copy of the image adds.
    ///
    /// - Throws: 400 for a store that has the image already, unless all stores were requested.
    package func added(to image: Image) throws -> [String] {
        let present = image.storeNames
        if !isForAllStores, let store = stores.first(where: { present.contains($0) }) {
            throw ResourceError.badRequest("Image is already present at store '\(store)'")
        }
        return stores.filter { !present.contains($0) }
    }

    /// - Parameters:
    ///   - enabled: the methods that the operator allows.
    ///   - stores: all stores, the default first.
    ///   - header: the store that the header `X-Image-Meta-Store` names.
    /// - Throws: 400 naming the member, 409 for an unknown store.
    package init(_ body: JSONValue, enabled: [Method], stores known: [String], header: String?) throws {
        guard let given = body["method"]?.objectValue else { throw ResourceError.badRequest("Import request requires a 'method' field.") }
        guard let name = given["name"]?.stringValue else { throw ResourceError.badRequest("Import request requires a 'name' field.") }
        guard let method = Method(rawValue: name), enabled.contains(method) else {
            throw ResourceError.badRequest("Unknown import method name '\(name.prefix(64))'.")
        }
        self.method = method
        uri = given["uri"]?.stringValue
        guard (method == .download) == (given["uri"] != nil) else {
            throw ResourceError.badRequest(
                method == .download ? "The method 'web-download' requires a 'uri'." : "'uri' is only for the method 'web-download'.")
        }
        func flag(_ name: String, _ fallback: Bool) throws -> Bool {
            guard let value = body[name] else { return fallback }
            guard let flag = value.boolValue else { throw ResourceError.badRequest("'\(name)' must be boolean value only") }
            return flag
        }
        allStoresMustSucceed = try flag("all_stores_must_succeed", true)
        isForAllStores = try flag("all_stores", false)
        stores = try ImageImport.stores(body, isForAllStores, known, header)
    }

    private static func stores(_ body: JSONValue, _ isForAll: Bool, _ known: [String], _ header: String?) throws -> [String] {
        guard let list = body["stores"] else {
            if isForAll {
                guard header == nil else {
                    throw ResourceError.badRequest("'all_stores' cannot be combined with the header X-Image-Meta-Store.")
                }
                return known
            }
            let store = header ?? known.first ?? ""
            try check([store], known)
            return [store]
        }
        guard header == nil, !isForAll else {
            throw ResourceError.badRequest("'stores' cannot be combined with 'all_stores' or the header X-Image-Meta-Store.")
        }
        guard let names = list.arrayValue?.compactMap(\.stringValue), names.count == list.arrayValue?.count, !names.isEmpty,
            Set(names).count == names.count
        else { throw ResourceError.badRequest("'stores' must be a list of different stores.") }
        try check(names, known)
        return names
    }

    private static func check(_ names: [String], _ known: [String]) throws {
        for name in names where !known.contains(name) {
            throw ResourceError.conflict("The store '\(name.prefix(64))' is unknown. It must be one of \(known.joined(separator: ", ")).")
        }
    }

    /// - Throws: 409 for an image that cannot be imported this way.
    package func check(_ image: Image) throws {
        switch (method, image.status) {
        case (.copy, .active), (.direct, .uploading), (.download, .queued): break
        case (.copy, _): throw ResourceError.conflict("Only images with status active can be targeted for copying")
        case (_, .active): throw ResourceError.conflict("Image with status active cannot be target for import")
        case (.direct, _): throw ResourceError.conflict("Image needs to be staged before 'glance-direct' method can be used")
        case (.download, _): throw ResourceError.conflict("Image needs to be in 'queued' state to use 'web-download' method")
        }
        if method == .direct, image.staging?.size == nil {
            throw ResourceError.conflict("The data of the image is still being staged.")
        }
        guard image.containerFormat != nil else { throw ResourceError.conflict("'container_format' needs to be set before import") }
        guard image.diskFormat != nil else { throw ResourceError.conflict("'disk_format' needs to be set before import") }
        guard image.importTask == nil else {
            throw ResourceError.conflict(
                "New operation on image '\(image.id)' is not permitted as prior operation is still in progress")
        }
    }
}
