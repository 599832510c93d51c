import Kernel
import Logging
import Telemetry
import WebAPI

/// Identity's whole API.
package enum IdentityAPI {
    /// Rules that several actions share.
    static let rules: [String: String] = [
        "cloud_reader": "rule:admin_required or (role:reader and system_scope:all)",
        "domain_reader": "role:reader and domain_id:%(target.domain_id)s",
        "domain_manager": "role:manager and domain_id:%(target.domain_id)s",
        "self": "user_id:%(target.user.id)s",
    ]

    /// - Throws: 400 for a policy rule that cannot be read.
    package static func make(
        _ identity: Identity, publicURL: String, policyOverrides: [String: String], log: Logger, metrics: Metrics
    ) throws -> API {
        try API(
            service: ServiceDescription(.identity, publicURL: publicURL),
            resources: identity.resources, rules: rules,
            policyOverrides: policyOverrides, database: identity.database, authenticator: identity.authenticator, ambient: identity.ambient,
            log: log, metrics: metrics)
    }
}

extension Identity {
    /// Everything that clients can reach.
    var resources: [Resource] {
        [
            discoveryResource, tokenResource, userResource, projectResource, domainResource, groupResource, roleResource,
            assignmentResource, credentialResource, storedCredentialResource, limitResource,
            absentResource,
        ] + catalogResources
    }
}
