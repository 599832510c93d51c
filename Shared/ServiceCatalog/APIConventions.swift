import Kernel

/// The conventions of an OpenStack API: the form of errors, and how unusual paths and limits are read.
package enum FaultStyle: Sendable {
    case compute, blockStorage, network, identity, image, placement

    /// Whether a path that ends in a slash, and so lacks its last id, is 404; otherwise it is the list's.
    package var refusesTrailingSlash: Bool { conventions.refusesTrailingSlash }

    /// Whether `limit=0` asks for an empty page; otherwise for a page of the greatest size.
    package var pageOfZeroIsEmpty: Bool { conventions.pageOfZeroIsEmpty }

    private var conventions: (refusesTrailingSlash: Bool, pageOfZeroIsEmpty: Bool) {
        switch self {
        case .compute, .blockStorage: (true, true)
        case .image: (true, false)
        case .network, .identity, .placement: (false, false)
        }
    }
}

/// The microversions that a service has, and the headers that name them.
package struct VersionNegotiation: Sendable {
    package let minimum: Microversion
    package let maximum: Microversion
    /// The service's word in `OpenStack-API-Version: compute 2.96`.
    package let serviceType: String
    /// `X-OpenStack-Nova-API-Version`, where the service has such an older header.
    package let legacyHeader: String?

    package init(minimum: Microversion, maximum: Microversion, serviceType: String, legacyHeader: String? = nil) {
        self.minimum = minimum
        self.maximum = maximum
        self.serviceType = serviceType
        self.legacyHeader = legacyHeader
    }
}

/// How a client reads and changes a service's quotas.
package struct QuotaInterface: Sendable {
    /// A quota, under the name that people use.
    package struct Resource: Sendable {
        package let name: String
        /// In the service's API.
        package let key: String

        package init(_ name: String, _ key: String? = nil) {
            self.name = name
            self.key = key ?? name
        }
    }

    /// Below the version's path; the project's id follows.
    package let path: String
    /// The member of bodies and answers.
    package let member: String
    /// Follows the project's id where limits shall be answered together with use.
    package let usagePath: String
    /// The query that asks for the use.
    package let usageQuery: [(String, String)]
    /// The microversion that clients send; nil for none.
    package let microversion: String?
    package let resources: [Resource]

    package init(
        path: String, member: String, usagePath: String = "", usageQuery: [(String, String)] = [], microversion: String? = nil,
        resources: [Resource]
    ) {
        self.path = path
        self.member = member
        self.usagePath = usagePath
        self.usageQuery = usageQuery
        self.microversion = microversion
        self.resources = resources
    }
}
