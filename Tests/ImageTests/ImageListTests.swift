import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import ImageService

/// Lists page by page: whatever is null or equal, each item comes once, and the pages end.
@Suite struct ImageListTests {
    @Test func everyListComesInPagesWhateverIsNull() async throws {
        try await ImageFixture.with { cloud in
            for body in [["name": "b", "disk_format": "raw", "container_format": "bare"], ["name": "a"], [:], ["name": "a"]] as [JSONValue] {
                #expect(!(try await cloud.create(body)).isEmpty)
            }
            let keys = ImageView.table.fields.filter(\.sortable).map(\.name)
            let sweep = ListSweep(cloud.api, token: "member")
            try await sweep.walk("/v2/images", collection: "images", sortKeys: keys)
            let (findings, walked) = try await RouteSweep(cloud.api).unpaged(["member", "admin"])
            #expect(findings == [])
            #expect(walked >= 1)
        }
    }
}
