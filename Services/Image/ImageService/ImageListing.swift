import Authorization
import Database
import ImageCore
import JSON
import Kernel
import WebAPI

/// What a client asks the list of images for.
struct ImageListing: Sendable {
    private(set) var request = ListRequest()
    private var conditions: [SQL] = []
    private var visibility: String?
    private var memberStatus: String = MemberStatus.accepted.rawValue
    private var isHidden = false
    private var keys: [String] = []
    private var directions: [String] = []

    /// - Throws: 400 naming parameter, value and rule.
    init(_ context: RequestContext) throws {
        request.limit = ImageLimits.pageSizeDefault
        for (name, value) in context.query.pagingItems { try read(name, value) }
        for key in keys where ImageView.table.fields.first(where: { $0.name == key }) == nil {
            throw ResourceError.badRequest(
                "Invalid sort key: \(key.prefix(64)). It must be one of \(ImageView.table.fields.map(\.name).sorted().joined(separator: ", "))."
            )
        }
        guard request.sort.isEmpty || keys.isEmpty else {
            throw ResourceError.badRequest("Old and new sorting syntax cannot be combined: the query has both sort and sort_key.")
        }
        for (index, key) in keys.enumerated() {
            // One direction counts for all keys.
            let direction = directions.isEmpty ? "desc" : directions[min(index, directions.count - 1)]
            request.sort.append((key, direction == "desc"))
        }
        if keys.isEmpty, request.sort.isEmpty, let direction = directions.first {
            request.sort = [("created_at", direction == "desc")]
        }
    }

    /// Whether the page is empty by the client's wish.
    var isEmptyPage: Bool { request.limit == 0 }

    private mutating func read(_ name: String, _ value: String) throws {
        switch name {
        case "limit":
            guard let limit = Int(value), limit >= 0 else { throw invalid(name, value, "a whole number from 0 on") }
            request.limit = min(limit, ImageLimits.pageSizeMax)
        case "marker": request.marker = value.isEmpty ? nil : value
        case "sort": request.sort = try sorting(value)
        case "sort_key": keys.append(value)
        case "sort_dir":
            guard ["asc", "desc"].contains(value) else { throw invalid(name, value, "asc or desc") }
            directions.append(value)
        case "visibility":
            guard value == "all" || ImageVisibility(rawValue: value) != nil else {
                throw invalid(name, value, "public, private, shared, community or all")
            }
            visibility = value
        case "member_status":
            guard value == "all" || MemberStatus(rawValue: value) != nil else {
                throw invalid(name, value, "pending, accepted, rejected or all")
            }
            memberStatus = value
        case "os_hidden": isHidden = try boolean(name, value)
        default: conditions.append(try condition(name, value))
        }
    }

    private func sorting(_ text: String) throws -> [(name: String, descending: Bool)] {
        try text.split(separator: ",", omittingEmptySubsequences: false).map { item in
            let parts = item.split(separator: ":", omittingEmptySubsequences: false)
            let direction = parts.count == 2 ? String(parts[1]) : "desc"
            guard parts.count <= 2, ["asc", "desc"].contains(direction),
                ImageView.table.fields.contains(where: { $0.name == parts[0] })
            else { throw invalid("sort", text, "a list of sort keys, each with :asc or :desc") }
            return (String(parts[0]), direction == "desc")
        }
    }

    private func condition(_ name: String, _ value: String) throws -> SQL {
        switch name {
        case "id": return try listed("t.id::text", name, value)
        case "name": return try listed("t.name", name, value)
        case "status":
            let filter = try ImageFilter.list(value, name: name)
            let words: [String] =
                switch filter {
                case .equals(let word): [word]
                case .oneOf(let words): words
                case .compared: []
                }
            for word in words where !ImageStatus.filterable.contains(word) {
                throw invalid(name, word, "one of \(ImageStatus.filterable.sorted())")
            }
            return "t.status = ANY(\(words)::text[])"
        case "container_format": return try listed("t.container_format", name, value)
        case "disk_format": return try listed("t.disk_format", name, value)
        case "owner": return "t.project_id = \(value)"
        case "tag": return "t.tags @> \([value])::text[]"
        case "checksum": return "t.checksum = \(value)"
        case "os_hash_value": return "t.os_hash_value = \(value)"
        case "os_hash_algo": return "t.os_hash_algo = \(value)"
        case "protected": return "t.protected = \(try boolean(name, value))"
        case "size_min": return "t.size >= \(try number(name, value))"
        case "size_max": return "t.size <= \(try number(name, value))"
        case "min_disk", "min_ram", "size", "virtual_size": return "t.\(raw: name) = \(try number(name, value))"
        case "created_at", "updated_at":
            guard case .compared(let comparison, let time) = try ImageFilter.time(value, name: name) else { return "true" }
            // Times are shown in whole seconds, and compared as shown.
            return "date_trunc('second', t.\(raw: name)) \(raw: comparison.sql) \(time)::timestamptz"
        default: return "t.properties ->> \(name) = \(value)"
        }
    }

    private func listed(_ expression: String, _ name: String, _ value: String) throws -> SQL {
        switch try ImageFilter.list(value, name: name) {
        case .oneOf(let values): "\(raw: expression) = ANY(\(values)::text[])"
        default: "\(raw: expression) = \(value)"
        }
    }

    private func boolean(_ name: String, _ value: String) throws -> Bool {
        switch value.lowercased() {
        case "true": return true
        case "false": return false
        default: throw invalid(name, value, "true or false")
        }
    }

    private func number(_ name: String, _ value: String) throws -> Int {
        guard let number = Int(value), number >= 0 else { throw invalid(name, value, "a whole number from 0 on") }
        return number
    }

    private func invalid(_ name: String, _ value: String, _ rule: String) -> ResourceError {
        .badRequest("Invalid value '\(value.prefix(64))' for '\(name)'. It must be \(rule).")
    }

    // MARK: what the caller sees

    /// The condition for the rows that `caller` gets.
    func scope(_ caller: Caller, seesAll: Bool) -> SQL {
        var all = conditions
        all.append("t.hidden = \(isHidden)")
        let project = caller.projectID ?? ""
        let isOwn: SQL = "t.project_id = \(project)"
        let member: SQL =
            memberStatus == "all"
            ? "EXISTS (SELECT 1 FROM image_members m WHERE m.image_id = t.id AND m.member_id = \(project))"
            : "EXISTS (SELECT 1 FROM image_members m WHERE m.image_id = t.id AND m.member_id = \(project) AND m.status = \(memberStatus))"
        let isShared: SQL = "(t.visibility = 'shared' AND \(member))"
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
