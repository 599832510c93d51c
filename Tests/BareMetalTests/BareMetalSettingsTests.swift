@testable import BareMetalService
import BareMetalCore
import Database
import JSON
import Kernel
import ServiceKit
import Telemetry
import Testing

/// The operator's settings.
@Suite struct BareMetalSettingsTests {
    @Test func onlyEnabledHardwareTypesExist() async throws {
        try await NodeFixture.with(hardware: [.redfish]) { cloud in
            let refused = try await cloud.call("POST", "/v1/nodes", ["driver": "fake-hardware"])
            #expect(refused.status == 400 && refused.fault.hasSuffix("there are redfish."), "\(refused.json)")
            #expect(try await cloud.call("POST", "/v1/nodes", ["driver": "redfish"]).status == 201)
            let drivers = try await cloud.call("GET", "/v1/drivers").json["drivers"]?.arrayValue ?? []
            #expect(drivers.compactMap { $0["name"]?.stringValue } == ["redfish"])
            #expect(try await cloud.call("GET", "/v1/drivers/ipmi").status == 404)
            let conductor = try await cloud.call("GET", "/v1/conductors/wolke-bare-metal").json
            #expect(conductor["drivers"] == ["redfish"])
        }
    }

    /// The operator has disabled a type that nodes have.
    @Test func nodesOfADisabledTypeSayWhy() async throws {
        try await NodeFixture.with(hardware: [.redfish]) { cloud in
            let id = try await cloud.call("POST", "/v1/nodes", ["driver": "redfish", "name": "one"]).json["uuid"]?.stringValue ?? ""
            try await cloud.database.write { try $0.execute("UPDATE bare_metal_nodes SET driver = 'ipmi' WHERE id = \(id)::uuid") }
            let refused = try await cloud.call("GET", "/v1/nodes/one/management/boot_device")
            #expect(refused.status == 400 && refused.fault.contains("bare_metal.hardware_types"), "\(refused.json)")
            #expect(try await cloud.provision("one", "manage").status == 202)
            try await cloud.settle()
            #expect(try await cloud.node("one")["last_error"]?.stringValue?.contains("bare_metal.hardware_types") == true)
        }
    }

    @Test func namesOfTypesAreChecked() throws {
        #expect(try HardwareType.enabled(["fake-hardware", "redfish"]).map(\.name) == ["fake-hardware", "redfish"])
        for names in [["redfish", "ilo"], []] { #expect(throws: ResourceError.self) { _ = try HardwareType.enabled(names) } }
    }

    /// Figures for Prometheus, from the look at the power of all nodes.
    @Test func nodesAreCounted() async throws {
        try await NodeFixture.with { cloud in
            _ = try await cloud.available("one")
            _ = try await cloud.available("two")
            #expect(try await cloud.patch("two", "add", "/driver_info/fake_failing", "power").status == 200)
            _ = try await cloud.available("three")
            #expect(try await cloud.call("PUT", "/v1/nodes/one/maintenance").status == 202)
            try await cloud.pollPower()
            let text = cloud.module.surroundings.metrics.render()
            #expect(text.contains(#"wolke_bare_metal_nodes{provision_state="available"} 3"#), "\(text)")
            #expect(text.contains(#"wolke_bare_metal_power_failures_total{driver="fake-hardware"} 1"#), "\(text)")
            #expect(text.contains("wolke_bare_metal_nodes_in_maintenance 1"), "\(text)")
        }
    }
}
