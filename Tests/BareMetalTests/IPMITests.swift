import BareMetalCore
import Database
import Foundation
import JSON
import Kernel
import TestKit
import Testing
import WebAPI

@testable import BareMetalService

/// `IPMIHardware` with a program that behaves like `ipmitool` and its controller, and records how it was started.
@Suite struct IPMITests {
    private struct Bench {
        let cloud: NodeFixture
        let directory: URL
        let driver: IPMIHardware
        let id: String

        func node() async throws -> Node { try await cloud.record(id) }

        func text(_ name: String) throws -> String { try String(contentsOf: directory.appending(path: name), encoding: .utf8) }
        func write(_ name: String, _ text: String) throws {
            try text.write(to: directory.appending(path: name), atomically: true, encoding: .utf8)
        }
    }

    /// Keeps the machine's state in files beside it. Its last arguments are the command.
    private static let program = """
        #!/bin/sh
        here=$(dirname "$0")
        printf '%s\\n' "$*" >>"$here/arguments"
        case "$*" in *'-f /dev/fd/3'*) cat /dev/fd/3 >"$here/password" ;; esac
        [ ! -e "$here/broken" ] || { printf 'Error: Unable to establish IPMI v2 / RMCP+ session\\033[0m\\n'; exit 1; }
        case "$*" in
          *'power status') echo "Chassis Power is $(cat "$here/power")" ;;
          *'power on') echo on >"$here/power" ;;
          *'power off' | *'power soft') echo off >"$here/power" ;;
          *'chassis bootparam get 5') cat "$here/boot" ;;
          *'chassis bootdev pxe') printf '   - Options apply to only next boot\\n   - Boot Device Selector : Force PXE\\n' >"$here/boot" ;;
          *'chassis bootdev disk options=persistent')
            printf ' - Options apply to all future boots\\n - Boot Device Selector : Force Boot from default Hard-Drive\\n' >"$here/boot" ;;
          *) exit 9 ;;
        esac
        """

    private static func with(_ info: JSONObject = [:], _ body: (Bench) async throws -> Void) async throws {
        let directory = FileManager.default.temporaryDirectory.appending(path: "wolke-ipmi-" + SystemRandom().uuid().compact)
        try FileManager.default.createDirectory(at: directory, withIntermediateDirectories: true)
        defer { try? FileManager.default.removeItem(at: directory) }
        let tool = directory.appending(path: "ipmitool")
        try TestProgram.write(program, to: tool.path)
        try await NodeFixture.with { cloud in
            var all: JSONObject = ["ipmi_address": "192.0.2.9", "ipmi_username": "admin", "ipmi_password": "s3cret word"]
            for member in info.members { all[member.name] = member.value }
            let id = try await cloud.enroll("machine", ["driver": "ipmi", "driver_info": .object(all)])
            let driver = IPMIHardware(
                secrets: NodeSecrets(keys: cloud.options.credentialKeys, ambient: Ambient()),
                wait: PowerWait(ambient: Ambient(), poll: .milliseconds(2)), tool: tool.path)
            let bench = Bench(cloud: cloud, directory: directory, driver: driver, id: id)
            try bench.write("power", "off")
            try await body(bench)
        }
    }

    @Test("S12: ipmitool gets its arguments as an array, and the password by a pipe")
    func s12ArgumentsAndPassword() async throws {
        try await IPMITests.with(["ipmi_port": 6230, "ipmi_cipher_suite": "17"]) { bench in
            let node = try await bench.node()
            #expect(try await bench.driver.power(of: node) == .off)
            let expected = """
                -I lanplus -H 192.0.2.9 -p 6230 -L ADMINISTRATOR -U admin -C 17 -f /dev/fd/3 -R 3 -N 2 power status

                """
            #expect(try bench.text("arguments") == expected)
            #expect(try bench.text("password") == "s3cret word\n")
        }
    }

    @Test func powerAndBootDevice() async throws {
        try await IPMITests.with { bench in
            let node = try await bench.node()
            try await bench.driver.setPower(of: node, .on)
            try await bench.driver.setPower(of: node, .on)
            #expect(try await bench.driver.power(of: node) == .on)
            try await bench.driver.setPower(of: node, .reboot)
            try await bench.driver.setPower(of: node, .softOff)
            #expect(try await bench.driver.power(of: node) == .off)
            let asked = try bench.text("arguments").split(separator: "\n").compactMap { $0.split(separator: " ").last }.filter {
                $0 != "status"
            }
            #expect(asked == ["on", "off", "on", "soft"])
            try await bench.driver.setBootDevice(of: node, .pxe, isPersistent: false)
            #expect(try await bench.driver.bootDevice(of: node) == BootOverride(device: .pxe, isPersistent: false))
            try await bench.driver.setBootDevice(of: node, .disk, isPersistent: true)
            #expect(try await bench.driver.bootDevice(of: node) == BootOverride(device: .disk, isPersistent: true))
            try bench.write("boot", " - Boot Device Selector : Force Boot from default Hard-Drive, request Safe-Mode\n")
            #expect(try await bench.driver.bootDevice(of: node) == BootOverride(device: .safe, isPersistent: false))
            try bench.write("boot", " - Boot Device Selector : No override\n")
            #expect(try await bench.driver.bootDevice(of: node) == nil)
        }
    }

    @Test func failuresSayWhat() async throws {
        try await IPMITests.with { bench in
            let node = try await bench.node()
            try bench.write("broken", "")
            let failure = await #expect(throws: HardwareFailure.self) { _ = try await bench.driver.power(of: node) }
            let text = failure?.description ?? ""
            #expect(text.contains("power status") && text.contains("Unable to establish") && !text.contains("\u{1b}"), "\(text)")
            #expect(!text.contains("s3cret"))
        }
    }

    @Test("S12: what a node says of its controller is no option and no other argument")
    func s12SettingsAreChecked() throws {
        func problem(_ name: String, _ value: JSONValue) -> String? {
            var info: JSONObject = ["ipmi_address": "bmc.example"]
            info[name] = value
            do {
                _ = try IPMIHardware.Settings(info, [:])
                return nil
            } catch { return error.description }
        }
        let good: [(String, JSONValue)] = [("ipmi_address", "2001:db8::1"), ("ipmi_port", "6230"), ("ipmi_priv_level", "OPERATOR")]
        for (name, value) in good { #expect(problem(name, value) == nil, "\(name) = \(value)") }
        let refused: [(String, JSONValue)] = [
            ("ipmi_address", "-c"), ("ipmi_address", "a b"), ("ipmi_address", "a;id"), ("ipmi_address", "$(id)"), ("ipmi_address", .null),
            ("ipmi_port", 0), ("ipmi_port", "1;id"), ("ipmi_username", "-f/etc/shadow"), ("ipmi_username", "a b"),
            ("ipmi_username", "seventeen-letters"), ("ipmi_priv_level", "-x"), ("ipmi_cipher_suite", 18),
        ]
        for (name, value) in refused { #expect(problem(name, value)?.contains(name) == true, "\(name) = \(value)") }
        #expect(throws: HardwareFailure.self) {
            try IPMIHardware.Settings(["ipmi_address": "a"], ["ipmi_password": Secret(String(repeating: "x", count: 21))])
        }
    }
}
