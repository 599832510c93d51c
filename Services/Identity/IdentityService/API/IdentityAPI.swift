import ServiceCatalog
import ServiceKit
import WebAPI

/// Identity's whole API.
package enum IdentityAPI {
    /// Rules that several actions share.
    static let rules: [String: String] = [
        "cloud_reader": "rule:admin_required or (role:reader and system_scope:all)",
        "domain_reader": "role:reader and domain_id:%(target.domain_id)s",
        "domain_manager": "role:manager and domain_id:%(target.domain_id)s",
        Identity.cloudProjectAction: "rule:admin_required",
        "self": "user_id:%(target.user.id)s",
    ]

    /// - Throws: 400 for a policy rule that cannot be parsed.
    static func make(_ identity: Identity, _ surroundings: ServiceSurroundings) throws -> API {
        try surroundings.api(.identity, resources: identity.resources, rules: rules)
    }
}

extension Identity {
    /// All resources of the API.
    var resources: [Resource] {
        [
            discoveryResource, tokenResource, userResource, projectResource, domainResource, groupResource, roleResource,
            assignmentResource, credentialResource, storedCredentialResource, limitResource,
            absentResource,
        ] + catalogResources
    }
}
