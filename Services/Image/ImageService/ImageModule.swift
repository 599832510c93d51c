package import Client
import ImageAccess
import ImageCore
import Inspections
import Kernel
import ServiceCatalog
package import ServiceKit
import WebAPI

/// The Image service as a module.
package enum ImageModule {
    /// - Parameters:
    ///   - stores: the stores of the images' data.
    ///   - cache: of this machine; nil for none.
    ///   - resolve: finds the addresses of the hosts from which images are downloaded.
    /// - Throws: 400 for a policy rule that cannot be parsed.
    package static func make(
        stores: ImageStores, limits: ImageServiceLimits, cache: MachineImageCache? = nil,
        resolve: @escaping PublicDownload.Resolve = PublicDownload.system,
        _ surroundings: ServiceSurroundings
    ) throws -> ServiceModule {
        let workflows = ImageWorkflows(
            database: surroundings.database, stores: stores, quota: ImageQuota(limits.quotas),
            download: PublicDownload(limits.download, ambient: surroundings.ambient, resolve: resolve), limits: limits,
            ambient: surroundings.ambient)
        let handlers = ImageHandlers(database: surroundings.database, stores: stores, limits: limits, workflows: workflows, cache: cache)
        let cleanup = ImageCleanupTask(
            database: surroundings.database, stores: stores, ambient: surroundings.ambient, log: surroundings.log)
        let definitions = DefinitionLoadTask(
            database: surroundings.database, ambient: surroundings.ambient, log: surroundings.log)
        let quotas = PeriodicTask(
            "image", every: .seconds(20), database: surroundings.database, ambient: surroundings.ambient, log: surroundings.log
        ) {
            _ = try await Repairs.recount(
                ImageQuotas.all, service: "image", surroundings.database, at: surroundings.ambient.now, surroundings.log)
            return true
        }
        let api = try surroundings.api(
            .image,
            subjectActions: [
                "add_image", "delete_image", "download_image", "get_image", "get_images", "modify_image", "upload_image",
            ],
            resources: [
                handlers.discoveryResource, handlers.resource, handlers.fileResource, handlers.memberResource,
                handlers.importResource, handlers.storeResource, handlers.cacheResource, handlers.metadataNamespaceResource,
            ] + handlers.metadataPartResources, rules: ImageRules.defaults)
        return ServiceModule(
            .image, surroundings, api: api, workflows: workflows.definitions,
            loops: (cache.map { cache in [.init("cache") { try await cache.run() }] } ?? []) + [
                .init("cleanup") { try await cleanup.run() }, .init("periodic tasks") { try await quotas.run() },
                .init("metadata definitions") { try await definitions.run() },
            ],
            quota: handlers.quota.quota)
    }
}
