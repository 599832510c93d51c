import Authorization
import Database
import ImageCore
import Kernel
import WebAPI

/// The part of the list's query that selects images by owner and membership.
struct ImageScope: Sendable {
    static let parameters: Set<String> = ["visibility", "member_status", "os_hidden"]

    private let visibility: String?
    private let memberStatus: String
    private let isHidden: Bool

    /// - Throws: 400 naming parameter, value and rule.
    init(_ context: RequestContext) throws {
        // If a parameter is repeated, the last one counts, as in Glance.
        var (visibility, memberStatus, isHidden): (String?, String, Bool) = (nil, MemberStatus.accepted.rawValue, false)
        for (name, value) in context.query.items {
            switch name {
            case "visibility":
                guard value == "all" || ImageVisibility(rawValue: value) != nil else {
                    throw ImageFilter.invalid(name, value, "public, private, shared, community or all")
                }
                visibility = value
            case "member_status":
                guard value == "all" || MemberStatus(rawValue: value) != nil else {
                    throw ImageFilter.invalid(name, value, "pending, accepted, rejected or all")
                }
                memberStatus = value
            case "os_hidden": isHidden = try ImageFilter.boolean(value, name: name)
            default: break
            }
        }
        (self.visibility, self.memberStatus, self.isHidden) = (visibility, memberStatus, isHidden)
    }

    /// The condition for the rows that the caller can list.
    func rows(_ context: RequestContext) throws -> SQL {
        let seesAll = context.allows("see_all_images")
        let project = try context.caller.projectID ?? ""
        let isOwn: SQL = "t.project_id = \(project)"
        let member: SQL =
            memberStatus == "all"
            ? "EXISTS (SELECT 1 FROM image_members m WHERE m.image_id = t.id AND m.member_id = \(project))"
            : "EXISTS (SELECT 1 FROM image_members m WHERE m.image_id = t.id AND m.member_id = \(project) AND m.status = \(memberStatus))"
        let isShared: SQL = "(t.visibility = 'shared' AND \(member))"
        var all: [SQL] = ["t.hidden = \(isHidden)"]
        switch visibility {
        case "public", "community": all.append("t.visibility = \(visibility)")
        case "private": all.append(seesAll ? "t.visibility = 'private'" : "t.visibility = 'private' AND \(isOwn)")
        case "shared": all.append(seesAll ? "t.visibility = 'shared'" : "t.visibility = 'shared' AND (\(isOwn) OR \(member))")
        case "all": if !seesAll { all.append("(t.visibility IN ('public', 'community') OR \(isOwn) OR \(isShared))") }
        default: if !seesAll { all.append("(t.visibility = 'public' OR \(isOwn) OR \(isShared))") }
        }
        return SQL.joined(all, separator: " AND ")
    }
}
