package import JSON
package import Kernel
package import ServiceCatalog

/// A token with Identity's response.
package struct CloudToken: Sendable {
    package let secret: Secret<String>
    package let expiresAt: Timestamp
    /// The `token` object of the response.
    package let document: JSONValue

    /// - Returns: nil if the document has no valid expiry.
    package init?(secret: Secret<String>, document: JSONValue) {
        guard let expiresAt = document["expires_at"]?.stringValue.flatMap({ Timestamp($0) }) else { return nil }
        self.secret = secret
        self.expiresAt = expiresAt
        self.document = document
    }

    package var userID: String? { document["user"]?["id"]?.stringValue }
    package var userName: String? { document["user"]?["name"]?.stringValue }
    package var projectID: String? { document["project"]?["id"]?.stringValue }
    package var domainID: String? { document["domain"]?["id"]?.stringValue }
    package var roles: [String] { (document["roles"]?.arrayValue ?? []).compactMap { $0["name"]?.stringValue } }

    /// Types of the services in the catalog.
    package var serviceTypes: [String] { catalog.compactMap { $0["type"]?.stringValue } }

    private var catalog: [JSONValue] { document["catalog"]?.arrayValue ?? [] }

    /// Whether the token is valid for long enough to be used.
    package func isFresh(at now: Timestamp) -> Bool { expiresAt - now > ClientLimits.renewalMargin }

    /// The endpoint of a service in the catalog; nil if there is none for this interface and region.
    package func endpoint(
        _ service: CloudService, interface: CloudConfiguration.Interface, region: String?
    ) -> String? {
        for type in service.catalogTypes {
            for entry in catalog where entry["type"]?.stringValue == type {
                for endpoint in entry["endpoints"]?.arrayValue ?? [] {
                    guard endpoint["interface"]?.stringValue == interface.rawValue else { continue }
                    let place = endpoint["region_id"]?.stringValue ?? endpoint["region"]?.stringValue
                    guard region == nil || place == region else { continue }
                    if let url = endpoint["url"]?.stringValue { return url }
                }
            }
        }
        return nil
    }

    /// The regions of a service in the catalog.
    package func regions(_ service: CloudService) -> [String] {
        var regions: [String] = []
        for entry in catalog where service.catalogTypes.contains(entry["type"]?.stringValue ?? "") {
            for endpoint in entry["endpoints"]?.arrayValue ?? [] {
                guard let region = endpoint["region_id"]?.stringValue ?? endpoint["region"]?.stringValue else { continue }
                if !regions.contains(region) { regions.append(region) }
            }
        }
        return regions
    }
}

/// Stores a token between processes.
package protocol TokenCache: Sendable {
    /// The stored token; nil if there is none or it cannot be read.
    func load() -> CloudToken?
    /// Stores the token; failures are ignored.
    func store(_ token: CloudToken)
    /// Called when a service has refused the stored token.
    func remove()
}
