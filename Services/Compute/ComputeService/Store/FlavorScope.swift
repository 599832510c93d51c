import Authorization
import Database
import Kernel
import WebAPI

/// The flavors that a caller can see.
enum FlavorScope {
    /// The value of `is_public`; nil for both.
    static func isPublic(_ context: RequestContext) throws -> Bool? {
        guard let text = context.query["is_public"] else { return true }
        if text.lowercased() == "none" { return nil }
        guard let value = BodySchema.boolean(text) else { throw ResourceError.badRequest("Invalid is_public filter [\(text.prefix(64))]") }
        return value
    }

    static func rows(_ context: RequestContext, isPublic: Bool? = nil) throws -> SQL {
        let mine: SQL = "EXISTS (SELECT 1 FROM flavor_access a WHERE a.flavor_id = t.id AND a.project_id = \(try context.caller.projectID))"
        guard context.allows("os_compute_api:os-flavor-access:all") else {
            return "(t.is_public OR \(mine)) AND NOT t.disabled"
        }
        switch isPublic {
        case nil: return "true"
        case true?: return "t.is_public"
        case false?: return "NOT t.is_public"
        }
    }
}
