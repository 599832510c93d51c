import BareMetalCore
import JSON
import Kernel
import Synchronization
import TestKit
import Testing
import WebAPI

@testable import BareMetalService

/// The functions of `HardwareDriver`, with every hardware type that has them.
@Suite struct HardwareConformanceTests {
    /// A node with a driver for its machine.
    private struct Bench {
        let driver: any HardwareDriver
        let cloud: NodeFixture
        let id: String
        /// The controller; nil for hardware that needs none.
        let stub: RedfishStub?

        func node() async throws -> Node { try await cloud.record(id) }
    }

    private static func with(_ type: String, _ body: (Bench) async throws -> Void) async throws {
        let stub = RedfishStub()
        let server = try StubServer { stub.answer($0) }
        defer { server.stop() }
        let info: JSONObject =
            switch type {
            case "redfish":
                [
                    "redfish_address": .string(server.url), "redfish_username": .string(RedfishStub.user),
                    "redfish_password": .string(RedfishStub.password),
                ]
            case "ipmi": ["ipmi_address": "192.0.2.9"]
            default: [:]
            }
        try await NodeFixture.with { cloud in
            let id = try await cloud.enroll("machine", ["driver": .string(type), "driver_info": .object(info)])
            let driver = try cloud.fleet.driver(of: try await cloud.record(id))
            try await body(Bench(driver: driver, cloud: cloud, id: id, stub: type == "redfish" ? stub : nil))
        }
    }

    private static let image = "http://images.example/ramdisk.iso"

    @Test(arguments: ["redfish", "fake-hardware"])
    func imagesAreInsertedAndEjected(_ type: String) async throws {
        try await HardwareConformanceTests.with(type) { bench in
            let node = try await bench.node()
            func images() async throws -> [String: String] {
                var found: [String: String] = [:]
                for drive in try await bench.driver.media(of: node) { found[drive.types[0]] = drive.image }
                return found
            }
            #expect(try await images() == [:])
            try await bench.driver.insertMedia(of: node, .cdrom, url: HardwareConformanceTests.image)
            #expect(try await images() == ["CD": HardwareConformanceTests.image])
            // A repeated call, and one with another image, replace what is there.
            try await bench.driver.insertMedia(of: node, .cdrom, url: HardwareConformanceTests.image)
            try await bench.driver.insertMedia(of: node, .cdrom, url: "http://images.example/2.iso")
            try await bench.driver.insertMedia(of: node, .floppy, url: HardwareConformanceTests.image)
            #expect(try await images() == ["CD": "http://images.example/2.iso", "Floppy": HardwareConformanceTests.image])
            try await bench.driver.ejectMedia(of: node, [.cdrom, .disk])
            #expect(try await images() == ["Floppy": HardwareConformanceTests.image])
            try await bench.driver.ejectMedia(of: node, Set(MediaDevice.allCases))
            try await bench.driver.ejectMedia(of: node, Set(MediaDevice.allCases))
            #expect(try await images() == [:])
        }
    }

    @Test(arguments: ["redfish", "fake-hardware"])
    func bootModeAndSecureBootAreSet(_ type: String) async throws {
        try await HardwareConformanceTests.with(type) { bench in
            let node = try await bench.node()
            try await bench.driver.setBootMode(of: node, .uefi)
            #expect(try await bench.driver.bootMode(of: node) == .uefi)
            #expect(try await bench.driver.secureBoot(of: node) == false)
            for _ in 0..<2 { try await bench.driver.setSecureBoot(of: node, true) }
            #expect(try await bench.driver.secureBoot(of: node) == true)
            try await bench.driver.setSecureBoot(of: node, false)
            for _ in 0..<2 { try await bench.driver.setBootMode(of: node, .bios) }
            #expect(try await bench.driver.bootMode(of: node) == .bios)
            let failure = await #expect(throws: HardwareFailure.self) { try await bench.driver.setSecureBoot(of: node, true) }
            #expect(failure?.description.contains("needs the boot mode uefi") == true)
        }
    }

    /// Older controllers: drives that belong to the manager and are changed by PATCH, no secure boot, one boot mode.
    @Test func olderRedfishControllers() async throws {
        try await HardwareConformanceTests.with("redfish") { bench in
            let node = try await bench.node()
            bench.stub?.machine.withLock { machine in
                machine.hasMediaActions = false
                machine.hasManagerMedia = true
                machine.secureBoot = nil
                machine.bootModes = ["Legacy"]
            }
            try await bench.driver.insertMedia(of: node, .cdrom, url: HardwareConformanceTests.image)
            #expect(bench.stub?.machine.withLock { $0.media } == ["Cd": HardwareConformanceTests.image])
            try await bench.driver.ejectMedia(of: node, [.cdrom])
            #expect(bench.stub?.machine.withLock { $0.media } == [:])
            #expect(try await bench.driver.secureBoot(of: node) == nil)
            try await bench.driver.setSecureBoot(of: node, false)
            await #expect(throws: HardwareFailure.self) { try await bench.driver.setSecureBoot(of: node, true) }
            let failure = await #expect(throws: HardwareFailure.self) { try await bench.driver.setBootMode(of: node, .uefi) }
            #expect(failure?.description.contains("does not have the boot mode UEFI, only Legacy") == true)
        }
    }

    @Test func otherHardwareSaysWhatItDoesNotHave() async throws {
        try await HardwareConformanceTests.with("ipmi") { bench in
            let node = try await bench.node()
            #expect(bench.driver.abilities == [])
            #expect(try await bench.driver.bootMode(of: node) == nil)
            #expect(try await bench.driver.secureBoot(of: node) == nil)
            await #expect(throws: HardwareFailure.self) { try await bench.driver.setBootMode(of: node, .uefi) }
            await #expect(throws: HardwareFailure.self) { try await bench.driver.setSecureBoot(of: node, true) }
            await #expect(throws: HardwareFailure.self) { _ = try await bench.driver.media(of: node) }
            await #expect(throws: HardwareFailure.self) { try await bench.driver.insertMedia(of: node, .cdrom, url: "http://h/i") }
            await #expect(throws: HardwareFailure.self) { try await bench.driver.ejectMedia(of: node, [.cdrom]) }
            let path = "/v1/nodes/\(bench.id)"
            let calls: [(String, String, JSONValue?)] = [
                ("PUT", "/states/boot_mode", ["target": "uefi"]), ("PUT", "/states/secure_boot", ["target": true]), ("GET", "/vmedia", nil),
                ("POST", "/vmedia", ["device_type": "cdrom", "image_url": "http://h/i"]), ("DELETE", "/vmedia", nil),
            ]
            for (method, place, body) in calls {
                let answer = try await bench.cloud.call(method, path + place, body)
                #expect(answer.status == 400 && answer.fault.contains("Driver ipmi does not support"), "\(method) \(place): \(answer.json)")
            }
        }
    }
}
