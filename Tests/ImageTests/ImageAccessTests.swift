import Authorization
import Database
import ImageAccess
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

/// Other services decide about images in the same way as Image, also with an operator's policy file.
@Suite struct ImageAccessTests {
    @Test func everyRuleOfTheRoutesIsInTheTable() async throws {
        try await ImageFixture.with { cloud in
            for route in cloud.api.resources.flatMap(\.routes) {
                guard let action = route.action else { continue }
                #expect(ImageRules.defaults[action] == route.rule, "\(action)")
            }
        }
    }

    @Test(
        "S10: who may use an image is decided as Image decides",
        arguments: [
            [:], ["download_image": "rule:admin_required"], ["get_image": "role:reader and project_id:%(project_id)s"],
            ["admin_required": "role:cloud_admin"], ["get_image": "@", "download_image": "role:member"],
            ["download_image": "rule:admin_required or user_domain_id:default"],
        ] as [[String: String]])
    func s10OneAnswer(policy: [String: String]) async throws {
        try await ImageFixture.with(policy: policy) { cloud in
            let access = try ImageAccess(policyOverrides: policy)
            for visibility in ["public", "community", "shared", "private"] {
                let id = try await cloud.create()
                #expect(try await cloud.upload(id, [1, 2, 3]).status == 204)
                try await cloud.database.write { connection in
                    try connection.execute("UPDATE images SET visibility = \(visibility) WHERE id = \(id)::uuid")
                    try connection.execute(
                        "INSERT INTO image_members (image_id, member_id, created_at, updated_at) VALUES (\(id)::uuid, 'p2', now(), now())")
                }
                for token in ["admin", "member", "reader", "other", "unscoped"] {
                    let caller = try await StaticAuthenticator.standard.caller(token: token)
                    let answer = try await cloud.call("GET", "/v2/images/\(id)/file", token: token).status
                    var decided = 200
                    var needsUser = false
                    do {
                        let found = try await cloud.database.read { try access.image($0, id, for: caller) }
                        if let found { needsUser = found.needsUser } else { decided = 404 }
                    } catch let error as ResourceError { decided = error.code == .forbidden ? 403 : 0 }
                    #expect(decided == answer, "\(visibility) \(token)")
                    guard decided == 200, let project = caller.projectID else { continue }
                    // The subject for fetching the data later.
                    let accepted = ActingSubject(project: project, user: caller.userID, grounds: .accepted)
                    let later = try await cloud.call("GET", "/v2/images/\(id)/file", token: "service", headers: accepted.headers).status
                    #expect((later != 200) == needsUser, "\(visibility) \(token) later: \(later)")
                }
            }
        }
    }
}
