import Database
import ImageFormat
import JSON
import Kernel
import Testing

@testable import ComputeService

/// Images whose data the Image service stores without inspecting it.
@Suite struct ImageContainerTests {
    private static func device(_ index: Int) -> JSONValue {
        [
            "source_type": "image", "destination_type": "volume", "boot_index": JSONValue(index), "volume_size": 2,
            "uuid": .string(Fixtures.image),
        ]
    }

    private static func setFormat(_ container: String, _ cloud: TestCloud) async throws {
        _ = try await cloud.database.write {
            try $0.execute("UPDATE images SET container_format = \(container), disk_format = 'raw' WHERE id = \(UUID128(Fixtures.image))")
        }
    }

    @Test("S1: a server cannot use an image that was not inspected as a disk")
    func s1OnlyInspectedImagesAreDisks() async throws {
        try await TestCloud.with { cloud in
            let ways: [(String, JSONObject)] = [
                ("imageRef", [:]), ("a second disk", ["block_device_mapping_v2": [ImageContainerTests.device(1)]]),
                ("boot from a new volume", ["imageRef": "<absent>", "block_device_mapping_v2": [ImageContainerTests.device(0)]]),
            ]
            for container in ["ova", "docker", "compressed"] {
                try await ImageContainerTests.setFormat(container, cloud)
                for (way, changes) in ways {
                    for path in ["servers", "os-wolke-scheduling"] {
                        let answer = try await cloud.call("POST", "/v2.1/\(path)", TestCloud.body(changes))
                        #expect(answer.status == 400, "\(container), \(way), \(path): \(answer.status) \(answer.json)")
                        for word in ["container_format", "'\(container)'", "bare", Fixtures.image] {
                            #expect(answer.message.contains(word), "\(container), \(way): \(answer.message)")
                        }
                    }
                }
            }
            let creation = try await cloud.database.read { try $0.query("SELECT count(*) AS n FROM servers")[0].int("n") }
            #expect(creation == 0)
            for container in ContainerFormats.bareDisks.sorted() {
                try await ImageContainerTests.setFormat(container, cloud)
                let answer = try await cloud.call("POST", "/v2.1/servers", TestCloud.body())
                #expect(answer.status == 202, "\(container): \(answer.json)")
            }
        }
    }
}
