import Client
import Glibc
import JSON
import Kernel
import NIOCore
import ServiceCatalog

/// Creates the initial objects of a cloud. Everything is looked up first, so that repeating it changes nothing.
struct InitialObjects: Sendable {
    let layout: CloudLayout
    let secrets: CloudSecrets
    /// The directory of the services' executables.
    let binaries: String
    let guestImage: String?

    static let externalName = "public"
    static let imageName = "guest"

    // MARK: Identity

    /// Creates users, projects, roles and the catalog through Identity's own command, because there is no user yet who could sign
    /// on.
    func identity() async throws -> String {
        let path = layout.secrets + "/bootstrap.json"
        try Machine.write(path, identityPlan.description + "\n", mode: 0o600)
        try await Tool.require(["\(binaries)/wolke-identity", "bootstrap", "--config", layout.configuration, "--file", path])
        return
            "projects admin, service, demo; users admin, demo, wolke; \(layout.services.flatMap(\.catalog).count) services in the catalog"
    }

    private var identityPlan: JSONValue {
        [
            "region": .string(CloudFiles.region),
            "projects": [
                ["name": "admin", "description": "The cloud's operators"],
                ["name": "service", "description": "The project of the services"],
                ["name": "demo", "description": "An example tenant"],
            ],
            "users": [
                [
                    "name": "admin", "password": .string(secrets.admin), "default_project": "admin",
                    "assignments": [
                        ["project": "admin", "roles": ["admin"]], ["domain": "default", "roles": ["admin"]],
                        ["system": true, "roles": ["admin"]],
                    ],
                ],
                [
                    "name": "wolke", "password": .string(secrets.service), "default_project": "service",
                    "assignments": [["project": "service", "roles": ["service"]]],
                ],
                [
                    "name": "demo", "password": .string(secrets.demo), "default_project": "demo",
                    "assignments": [["project": "demo", "roles": ["member"]]],
                ],
            ],
            "services": .array(
                layout.services.flatMap { service in
                    service.catalog.map { entry in
                        let url = "\(CloudFiles.url(service, layout))\(entry.path)"
                        return ["type": .string(entry.type), "name": .string(entry.type), "url": .string(url)]
                    }
                }),
        ]
    }

    private var client: RESTClient {
        RESTClient(
            CloudConfiguration(
                name: "wolke-admin", authURL: CloudFiles.authURL(layout),
                credentials: .password(user: .name("admin", domain: .id("default")), password: Secret(secrets.admin)),
                scope: .project(.name("admin", domain: .id("default"))), region: CloudFiles.region, timeout: .seconds(20)))
    }

    // MARK: Flavors

    private static let flavorList: [(name: String, id: String, vcpus: Int, memory: Int, disk: Int)] = [
        ("m1.nano", "42", 1, 128, 1), ("m1.tiny", "1", 1, 512, 1), ("m1.small", "2", 1, 2048, 20),
        ("m1.medium", "3", 2, 4096, 40), ("m1.large", "4", 4, 8192, 80),
    ]

    func flavors() async throws -> String {
        let client = client
        let there = try await client.list(service: .compute, path: "/flavors/detail", key: "flavors").compactMap { $0["name"]?.stringValue }
        for flavor in InitialObjects.flavorList where !there.contains(flavor.name) {
            try await client.post(
                .compute, "/flavors",
                [
                    "flavor": [
                        "name": .string(flavor.name), "id": .string(flavor.id), "vcpus": JSONValue(flavor.vcpus),
                        "ram": JSONValue(flavor.memory), "disk": JSONValue(flavor.disk), "os-flavor-access:is_public": true,
                    ]
                ])
        }
        return InitialObjects.flavorList.map(\.name).joined(separator: ", ")
    }

    // MARK: Image

    func image() async throws -> String {
        let client = client
        let there = try await client.list(
            service: .image, path: "/images", key: "images", query: [("name", InitialObjects.imageName), ("visibility", "public")])
        if let image = there.first(where: { $0["status"]?.stringValue == "active" }) {
            return "\(InitialObjects.imageName), \(image["size"]?.intValue.map { "\($0 >> 20) MB" } ?? "")"
        }
        let path = guestImage ?? layout.images + "/guest.qcow2"
        guard Machine.exists(path) else {
            throw CloudError(
                """
                \(path), from which the image `\(InitialObjects.imageName)` is created, does not exist; run `make \
                guest-image`
                """, isFinal: true)
        }
        // Left over from an interrupted upload.
        for image in there {
            if let id = image["id"]?.stringValue { try await client.delete(.image, "/images/\(id)", missingIsFine: true) }
        }
        let created = try await client.post(
            .image, "/images",
            [
                "name": .string(InitialObjects.imageName), "visibility": "public", "disk_format": "qcow2", "container_format": "bare",
                "min_disk": 1, "min_ram": 64, "os_distro": "wolke-guest",
            ])
        guard let id = created["id"]?.stringValue else { throw CloudError("Image's response has no id of the new image") }
        let file = try FileChunks(path: path)
        _ = try await client.upload(service: .image, path: "/images/\(id)/file", length: file.size) { try FileChunks(path: path) }
        return "\(InitialObjects.imageName), \(file.size >> 20) MB"
    }

    // MARK: Network

    func network() async throws -> String {
        let client = client
        let there = try await client.list(
            service: .network, path: "/networks", key: "networks",
            query: [("name", InitialObjects.externalName), ("router:external", "true")])
        var found = there.first
        if found == nil {
            found = try await client.post(
                .network, "/networks",
                [
                    "network": [
                        "name": .string(InitialObjects.externalName), "router:external": true,
                        "provider:network_type": "flat", "provider:physical_network": .string(CloudLayout.physicalNetwork),
                    ]
                ])["network"]
        }
        guard let id = found?["id"]?.stringValue else { throw CloudError("Network's response has no id of the external network") }
        let subnets = try await client.list(service: .network, path: "/subnets", key: "subnets", query: [("network_id", id)])
        if subnets.isEmpty {
            try await client.post(
                .network, "/subnets",
                [
                    "subnet": [
                        "network_id": .string(id), "name": .string(InitialObjects.externalName + "-subnet"), "ip_version": 4,
                        "cidr": .string("\(layout.externalNetwork)"), "gateway_ip": .string("\(layout.externalAddress(1))"),
                        "enable_dhcp": false,
                        "allocation_pools": [
                            ["start": .string("\(layout.externalAddress(10))"), "end": .string("\(layout.externalAddress(250))")]
                        ],
                    ]
                ])
        }
        return "\(InitialObjects.externalName), \(layout.externalNetwork)"
    }
}

/// The content of a file, read in pieces.
struct FileChunks: AsyncSequence, Sendable {
    typealias Element = ByteBuffer
    let path: String
    let size: Int64
    private static let chunk = 256 * 1024

    /// - Throws: `CloudError` if the file cannot be read.
    init(path: String) throws {
        var information = stat()
        guard stat(path, &information) == 0 else { throw Machine.failure("read", path) }
        self.path = path
        size = Int64(information.st_size)
    }

    func makeAsyncIterator() -> Iterator { Iterator(path: path) }

    final class Iterator: AsyncIteratorProtocol {
        private let path: String
        private var descriptor: Int32 = -1

        init(path: String) { self.path = path }
        deinit { if descriptor >= 0 { close(descriptor) } }

        func next() async throws -> ByteBuffer? {
            if descriptor < 0 { descriptor = open(path, O_RDONLY | O_CLOEXEC) }
            guard descriptor >= 0 else { throw Machine.failure("read", path) }
            var bytes = [UInt8](repeating: 0, count: FileChunks.chunk)
            let count = read(descriptor, &bytes, bytes.count)
            guard count >= 0 else { throw Machine.failure("read", path) }
            return count == 0 ? nil : ByteBuffer(bytes: bytes[..<count])
        }
    }
}
