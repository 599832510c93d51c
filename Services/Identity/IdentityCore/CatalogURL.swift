/// An endpoint's URL as registered, with placeholders for the token's project and user.
package enum CatalogURL {
    /// Replaces `$(project_id)s`, `$(tenant_id)s`, `$(user_id)s` and their `%(…)s` forms.
    ///
    /// - Returns: nil where the URL needs a project and the token has none: such an endpoint is left out.
    package static func expand(_ url: String, projectID: String?, userID: String) -> String? {
        var result = ""
        var rest = Substring(url)
        while let start = rest.firstIndex(where: { $0 == "$" || $0 == "%" }) {
            result += rest[..<start]
            let tail = rest[start...].dropFirst()
            guard tail.first == "(", let close = tail.firstRange(of: ")s") else {
                result.append(rest[start])
                rest = tail
                continue
            }
            switch tail[..<close.lowerBound].dropFirst() {
            case "project_id", "tenant_id":
                guard let projectID else { return nil }
                result += projectID
            case "user_id": result += userID
            default: return nil
            }
            rest = tail[close.upperBound...]
        }
        return result + rest
    }

    /// Whether the URL has only placeholders known to `expand`, and an http or https scheme.
    package static func isUsable(_ url: String) -> Bool {
        guard url.hasPrefix("http://") || url.hasPrefix("https://") else { return false }
        return expand(url, projectID: "p", userID: "u") != nil && !url.unicodeScalars.contains { $0.value <= 32 }
    }
}
