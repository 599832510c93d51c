// swift-tools-version: 6.2
import PackageDescription

// One declaration per module: add a service or a shared module here and nowhere else.

let swift: [SwiftSetting] = [
    .enableUpcomingFeature("ExistentialAny"),
    .enableUpcomingFeature("MemberImportVisibility"),
    .enableUpcomingFeature("InternalImportsByDefault"),
    .treatAllWarnings(as: .error),
]

let hummingbird: Target.Dependency = .product(name: "Hummingbird", package: "hummingbird")
let hummingbirdCore: Target.Dependency = .product(name: "HummingbirdCore", package: "hummingbird")
let log: Target.Dependency = .product(name: "Logging", package: "swift-log")
let lifecycle: Target.Dependency = .product(name: "ServiceLifecycle", package: "swift-service-lifecycle")
let nio: Target.Dependency = .product(name: "NIOCore", package: "swift-nio")
let nioPosix: Target.Dependency = .product(name: "NIOPosix", package: "swift-nio")
let nioHTTP: Target.Dependency = .product(name: "NIOHTTP1", package: "swift-nio")
let nioWebSocket: Target.Dependency = .product(name: "NIOWebSocket", package: "swift-nio")
let httpTypes: Target.Dependency = .product(name: "HTTPTypes", package: "swift-http-types")
let httpClient: Target.Dependency = .product(name: "AsyncHTTPClient", package: "async-http-client")
let arguments: Target.Dependency = .product(name: "ArgumentParser", package: "swift-argument-parser")
let yaml: Target.Dependency = .product(name: "Yams", package: "Yams")

func shared(_ name: String, _ dependencies: [Target.Dependency] = []) -> Target {
    .target(name: name, dependencies: dependencies, path: "Shared/\(name)", swiftSettings: swift)
}

func library(_ name: String, _ library: String, package: String) -> Target {
    .systemLibrary(name: name, path: "Shared/\(name)", pkgConfig: library, providers: [.apt([package])])
}

/// What every API service links: the request path, the store and the engine.
let platform: [Target.Dependency] = [
    "Kernel", "JSON", "Contracts", "Database", "Schema", "Workflow", "Messaging", "WebAPI", "Authorization",
    "Telemetry", "Settings", "Client", "ServiceCatalog", "ServiceKit", "Inspections", log, lifecycle,
]

func service(
    _ name: String, _ executable: String, core: [Target.Dependency] = [], _ extra: [Target.Dependency] = []
) -> [Target] {
    [
        .target(
            name: "\(name)Core", dependencies: ["Kernel", "JSON", "Contracts", "ServiceCatalog"] + core,
            path: "Services/\(name)/\(name)Core", swiftSettings: swift),
        .target(
            name: "\(name)Service", dependencies: [.target(name: "\(name)Core")] + platform + extra,
            path: "Services/\(name)/\(name)Service", swiftSettings: swift),
        .executableTarget(
            name: executable, dependencies: [.target(name: "\(name)Service"), "ServiceCatalog", "ServiceKit"],
            path: "Services/\(name)/\(executable)", swiftSettings: swift),
    ]
}

func tests(_ name: String, _ dependencies: [Target.Dependency], platform: [Target.Dependency] = ["Kernel", "JSON"])
    -> Target
{
    .testTarget(
        name: name, dependencies: ["TestKit"] + platform + dependencies, path: "Tests/\(name)", swiftSettings: swift)
}

let package = Package(
    name: "wolke",
    platforms: [.macOS(.v15)],
    // Exact versions, because there is no lock file. Transitive dependencies are not pinned.
    dependencies: [
        .package(url: "https://github.com/hummingbird-project/hummingbird", exact: "2.28.1", traits: []),
        .package(url: "https://github.com/apple/swift-log", exact: "1.16.2"),
        .package(url: "https://github.com/swift-server/swift-service-lifecycle", exact: "2.13.0"),
        .package(url: "https://github.com/apple/swift-nio", exact: "2.101.2"),
        .package(url: "https://github.com/apple/swift-nio-ssl", exact: "2.37.6"),
        .package(url: "https://github.com/apple/swift-http-types", exact: "1.8.0"),
        .package(url: "https://github.com/swift-server/async-http-client", exact: "1.37.0"),
        .package(url: "https://github.com/apple/swift-argument-parser", exact: "1.8.2"),
        .package(url: "https://github.com/jpsim/Yams", exact: "6.2.2"),
    ],
    targets: [
        library("CLibpq", "libpq", package: "libpq-dev"),
        library("CRabbitMQ", "librabbitmq", package: "librabbitmq-dev"),
        library("CLibvirt", "libvirt", package: "libvirt-dev"),
        library("CLibcrypto", "libcrypto", package: "libssl-dev"),
        library("CZlib", "zlib", package: "zlib1g-dev"),
        .target(name: "CLinux", path: "Shared/CLinux"),
        .target(name: "CProcessExit", path: "Shared/CProcessExit", linkerSettings: [.linkedLibrary("crypto")]),
        .target(name: "CCrypt", path: "Shared/CCrypt", linkerSettings: [.linkedLibrary("crypt")]),

        shared("Kernel"),
        shared("JSON", ["Kernel"]),
        shared("Cryptography", ["CLibcrypto", "CProcessExit", "Kernel"]),
        shared("ImageFormat", ["Kernel"]),
        shared("GuestKeys", ["Kernel"]),
        shared("Commands", ["Kernel", "CLinux"]),
        shared("DiskTool", ["Kernel", "JSON", "Commands", "ImageFormat"]),
        shared("ServiceCatalog", ["Kernel"]),
        shared("Settings", ["Kernel", "ServiceCatalog", yaml]),
        shared("Telemetry", ["Kernel", "JSON", log]),
        shared("Contracts", ["Kernel", "JSON", "GuestKeys"]),
        shared("Database", ["Kernel", "JSON", "Telemetry", "CLibpq", "CProcessExit", log]),
        shared("Schema", ["Kernel", "Database", log]),
        shared("Messaging", ["Kernel", "JSON", "Contracts", "Database", "Telemetry", "CRabbitMQ", log, lifecycle]),
        shared("Workflow", ["Kernel", "JSON", "Contracts", "Database", "Telemetry", log, lifecycle]),
        shared("Authorization", ["Kernel", "JSON", "Contracts", "Database", "CCrypt", "Cryptography", log, lifecycle]),
        shared(
            "WebAPI",
            [
                "Kernel", "JSON", "ServiceCatalog", "Contracts", "Database", "Authorization", "Telemetry", hummingbird, hummingbirdCore,
                nio, nioHTTP, httpTypes, log, lifecycle, "Cryptography",
            ]),
        shared(
            "ServiceKit",
            [
                "Kernel", "Contracts", "ServiceCatalog", "Database", "Schema", "Settings", "Telemetry", "Authorization", "WebAPI", "Client",
                "Messaging", "Workflow", "Inspections", log, lifecycle,
            ]),
        shared("ImageAccess", ["Kernel", "JSON", "Database", "Authorization", "Settings"]),
        shared("FileTransfer", ["Kernel", "Client", "Cryptography", "JSON", "ServiceCatalog", nio]),
        shared("Inspections", ["Kernel", "Contracts", "ServiceCatalog", "Database", log]),
        shared("OVSDB", ["Kernel", "JSON", nio, nioPosix, .product(name: "NIOSSL", package: "swift-nio-ssl"), log]),
        shared("Libvirt", ["Kernel", "CLibvirt", log]),
        shared("Client", ["Kernel", "JSON", "ServiceCatalog", httpClient, nio, nioPosix]),
        .target(
            name: "TestKit",
            dependencies: [
                "Kernel", "JSON", "Contracts", "ServiceCatalog", "ServiceKit", "Messaging", "Telemetry", "Commands", "Database", "Schema",
                "Workflow", "WebAPI", "Authorization", log,
            ],
            path: "Shared/TestKit", swiftSettings: swift),
    ]
        + service("Identity", "wolke-identity", ["Cryptography", "CCrypt"])
        + service("Placement", "wolke-placement")
        + service("Compute", "wolke-compute", core: ["GuestKeys"], ["GuestKeys", "ImageAccess", "ImageFormat", "Cryptography"])
        + service(
            "ComputeAgent", "wolke-compute-agent", core: ["ImageFormat", "GuestKeys"],
            [
                "Libvirt", "OVSDB", "CLinux", "Commands", "DiskTool", "FileTransfer", "GuestKeys", "ImageFormat", "Cryptography", nio,
                nioPosix, nioHTTP,
            ])
        + service("Console", "wolke-console", ["Cryptography", nio, nioPosix, nioHTTP, nioWebSocket])
        + service("Network", "wolke-network", ["OVSDB"])
        + service("BareMetal", "wolke-bare-metal", ["Commands", "Cryptography"])
        + service(
            "BlockStorage", "wolke-block-storage", core: ["ImageFormat"],
            ["Commands", "DiskTool", "FileTransfer", "ImageAccess", "ImageFormat", "Cryptography", nio, nioPosix])
        + service(
            "Image", "wolke-image", core: ["GuestKeys", "ImageFormat"],
            ["CZlib", "Commands", "DiskTool", "FileTransfer", "ImageAccess", "ImageFormat", "Cryptography", nio, nioPosix])
        + [
            .executableTarget(
                name: "osctl",
                dependencies: [
                    "Kernel", "JSON", "Contracts", "ServiceCatalog", "Settings", "Client", "Commands", "Database", "Schema", "Telemetry",
                    "OVSDB", "IdentityCore", "ImageCore", "Authorization", "Inspections", "PlacementCore", "NetworkCore",
                    "BlockStorageCore", "ComputeCore", "BareMetalCore",
                    arguments,
                    yaml, log, nio, nioPosix, nioHTTP, nioWebSocket,
                ],
                path: "osctl", swiftSettings: swift),
            .executableTarget(
                name: "wolke-bench",
                dependencies: [
                    "Kernel", "JSON", "Contracts", "Database", "Schema", "Authorization", "Workflow", "Messaging", "CRabbitMQ", "OVSDB",
                    "PlacementCore", "PlacementService", hummingbird, nio, log, arguments,
                ],
                path: "bench/wolke-bench", swiftSettings: swift),
            .executableTarget(
                name: "wolke-simulate",
                dependencies: [
                    "PlacementCore", "PlacementService", "ComputeCore", "ComputeService", "NetworkCore", "NetworkService",
                    "BlockStorageCore", "BlockStorageService",
                    "ComputeAgentCore", "ComputeAgentService", "Commands", "Cryptography", "DiskTool", "FileTransfer", "ImageAccess",
                    "Libvirt", "TestKit", nio,
                ] + platform,
                path: "Tests/Simulation", swiftSettings: swift),
            tests("SimulationTests", ["wolke-simulate"]),
            tests("KernelTests", []),
            tests(
                "OVSDBTests",
                ["OVSDB", "Commands", nio, nioPosix, log, .product(name: "NIOEmbedded", package: "swift-nio")]),
            tests("NetworkTests", ["NetworkCore", "NetworkService", "OVSDB"], platform: platform),
            tests("ContractsTests", ["Contracts", "Database", "Messaging", "Schema"]),
            tests("DatabaseTests", ["Database", "Schema", "Telemetry", "CProcessExit"]),
            tests("SettingsTests", ["ServiceCatalog", "Settings"]),
            tests("WorkflowTests", ["Workflow", "Contracts", "Database", "Schema", log]),
            tests("WebAPITests", ["WebAPI", "Contracts", "ServiceCatalog", "Authorization", "Database", "Schema", "Telemetry", log, nio]),
            tests("AuthorizationTests", ["Authorization", "Database", "Schema", log]),
            tests("TidyTests", ["Contracts", "ServiceCatalog"]),
            tests("IdentityTests", ["Cryptography", "IdentityCore", "IdentityService"], platform: platform),
            tests("ImageFormatTests", ["ImageFormat"]),
            tests("DiskToolTests", ["DiskTool", "Commands", "ImageFormat"]),
            tests(
                "ImageTests", ["Commands", "Cryptography", "GuestKeys", "ImageAccess", "ImageCore", "ImageFormat", "ImageService", nio],
                platform: platform),
            tests(
                "BlockStorageTests",
                ["BlockStorageCore", "BlockStorageService", "Commands", "Cryptography", "DiskTool", "FileTransfer", "ImageAccess", nio],
                platform: platform),
            tests(
                "ComputeTests", ["BlockStorageCore", "ComputeCore", "ComputeService", "GuestKeys", "ImageAccess", "ImageFormat"],
                platform: platform),
            tests("BareMetalTests", ["BareMetalCore", "BareMetalService", "Commands", "Cryptography"], platform: platform),
            tests("CommandsTests", ["Commands"]),
            tests("MessagingTests", ["Messaging", "Contracts", "Commands", "Database", "Schema", log]),
            tests("PlacementTests", ["ComputeCore", "PlacementCore", "PlacementService"], platform: platform),
            tests("LibvirtTests", ["Libvirt", log]),
            tests(
                "ComputeAgentTests",
                [
                    "ComputeAgentCore", "Commands", "Cryptography", "GuestKeys", "ImageFormat", "ComputeAgentService", "DiskTool",
                    "FileTransfer", "Libvirt", "OVSDB",
                    nio, nioPosix,
                ],
                platform: platform),
            tests("CryptographyTests", ["Cryptography"]),
            tests("ClientTests", ["Client", "ServiceCatalog", log, nio, nioPosix, nioHTTP]),
            tests("Example", ["osctl", arguments], platform: platform),
            tests("CLITests", ["osctl", "Contracts", "Inspections", "Schema", "ServiceCatalog", "Settings", "Client", arguments, yaml]),
        ],
    swiftLanguageModes: [.v6]
)

// `make up` builds what a cloud runs, without the tests, the benchmarks and the simulation.
if Context.environment["WOLKE_BUILD"] == "cloud" {
    package.targets.removeAll { $0.type == .test || ["TestKit", "wolke-bench", "wolke-simulate"].contains($0.name) }
}
