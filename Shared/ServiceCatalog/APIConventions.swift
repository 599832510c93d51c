package import Kernel

/// The conventions of an OpenStack API: the error format, and the interpretation of unusual paths and limits.
package enum FaultStyle: Sendable {
    case compute, blockStorage, network, identity, image, placement, bareMetal

    /// Whether a path with a trailing slash (an empty id) is 404; otherwise it is treated as the path of the list.
    package var refusesTrailingSlash: Bool { conventions.refusesTrailingSlash }

    /// Whether `limit=0` requests an empty page; otherwise it requests a page of maximum size.
    package var pageOfZeroIsEmpty: Bool { conventions.pageOfZeroIsEmpty }

    private var conventions: (refusesTrailingSlash: Bool, pageOfZeroIsEmpty: Bool) {
        switch self {
        case .compute, .blockStorage: (true, true)
        case .image: (true, false)
        case .network, .identity, .placement, .bareMetal: (false, false)
        }
    }
}

/// The microversions of a service, and the headers for them.
package struct VersionNegotiation: Sendable {
    package let minimum: Microversion
    package let maximum: Microversion
    /// The service's name in `OpenStack-API-Version: compute 2.96`.
    package let serviceType: String
    /// An older header, such as `X-OpenStack-Nova-API-Version`, if the service has one.
    package let legacyHeader: String?
    /// Whether each response has the range in two headers named after the older one, as Ironic's have.
    package let announcesRange: Bool

    package init(
        minimum: Microversion, maximum: Microversion, serviceType: String, legacyHeader: String? = nil, announcesRange: Bool = false
    ) {
        self.announcesRange = announcesRange
        self.minimum = minimum
        self.maximum = maximum
        self.serviceType = serviceType
        self.legacyHeader = legacyHeader
    }
}

/// How a client reads and changes a service's quotas.
package struct QuotaInterface: Sendable {
    /// A quota, under the name that users know.
    package struct Resource: Sendable {
        package let name: String
        /// The name in the service's API.
        package let key: String

        package init(_ name: String, _ key: String? = nil) {
            self.name = name
            self.key = key ?? name
        }
    }

    /// The path below the version's path; the project's id follows it.
    package let path: String
    /// The member that wraps the quotas in requests and responses.
    package let member: String
    /// Path suffix after the project's id that requests limits together with usage.
    package let usagePath: String
    /// The query that requests the usage.
    package let usageQuery: [(String, String)]
    /// The microversion that clients send; nil for none.
    package let microversion: String?
    /// Whether the API has `/os-quota-class-sets/default`, the limits of projects without limits of their own.
    package let hasDefaultClass: Bool
    package let resources: [Resource]

    package init(
        path: String, member: String, usagePath: String = "", usageQuery: [(String, String)] = [], microversion: String? = nil,
        hasDefaultClass: Bool = false, resources: [Resource]
    ) {
        self.path = path
        self.member = member
        self.usagePath = usagePath
        self.usageQuery = usageQuery
        self.microversion = microversion
        self.hasDefaultClass = hasDefaultClass
        self.resources = resources
    }
}
