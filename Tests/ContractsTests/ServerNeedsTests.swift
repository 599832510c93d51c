import Contracts
import Database
import JSON
import Kernel
import TestKit
import Testing

/// The requirements of a server: one function, and the equivalent SQL.
@Suite struct ServerNeedsTests {
    struct Case: Sendable, CustomTestStringConvertible {
        let name: String
        let flavor: JSONValue
        let image: JSONValue?
        var properties: TextMap = [:]
        let resources: [String: Int]
        var required: Set<String> = []
        var forbidden: Set<String> = []

        var testDescription: String { name }
    }

    private static func flavor(_ more: JSONObject = [:]) -> JSONValue {
        var flavor: JSONObject = [
            "vcpus": 2, "ram": 512, "disk": 3, "ephemeral": 0, "swap": 0, "extra_specs": [:], "hardware_checked": true,
        ]
        for member in more.members { flavor[member.name] = member.value }
        return .object(flavor)
    }

    static let cases = [
        Case(name: "plain", flavor: flavor(), image: [:], resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 3]),
        Case(
            name: "a row without what is optional", flavor: ["vcpus": 1, "ram": 64, "disk": 1], image: [:],
            resources: ["VCPU": 1, "MEMORY_MB": 64, "DISK_GB": 1]),
        Case(
            name: "swap of one MiB takes a GiB", flavor: flavor(["swap": 1]), image: [:],
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 4]),
        Case(
            name: "swap of one GiB takes one", flavor: flavor(["swap": 1024]), image: [:],
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 4]),
        Case(
            name: "swap is rounded up", flavor: flavor(["swap": 1025]), image: [:],
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 5]),
        Case(
            name: "ephemeral disk", flavor: flavor(["ephemeral": 7]), image: [:],
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 10]),
        Case(name: "boot from a volume", flavor: flavor(), image: nil, resources: ["VCPU": 2, "MEMORY_MB": 512]),
        Case(
            name: "boot from a volume with swap and ephemeral disk", flavor: flavor(["swap": 512, "ephemeral": 2]), image: nil,
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 3]),
        Case(
            name: "zero disk takes the image's size", flavor: flavor(["disk": 0]), image: ["disk_gb": 5],
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 5]),
        Case(
            name: "zero disk and an image without a size", flavor: flavor(["disk": 0]), image: [:],
            resources: ["VCPU": 2, "MEMORY_MB": 512]),
        Case(
            name: "the flavor's disk counts, not the image's", flavor: flavor(), image: ["disk_gb": 5],
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 3]),
        Case(
            name: "resources replace and add",
            flavor: flavor(["extra_specs": ["resources:VCPU": "0", "resources:CUSTOM_A": "4", "resources:DISK_GB": "9", "hw:x": "y"]]),
            image: [:], resources: ["MEMORY_MB": 512, "CUSTOM_A": 4, "DISK_GB": 9]),
        Case(
            name: "resources of a server that boots from a volume", flavor: flavor(["extra_specs": ["resources:DISK_GB": "9"]]), image: nil,
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 9]),
        Case(
            name: "resources that are zero", flavor: flavor(["extra_specs": ["resources:CUSTOM_A": "0"]]), image: [:],
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 3]),
        Case(
            name: "a number as an extra spec", flavor: flavor(["extra_specs": ["resources:CUSTOM_A": 2]]), image: [:],
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 3, "CUSTOM_A": 2]),
        Case(
            name: "traits of flavor and image", flavor: flavor(["extra_specs": ["trait:A": "required", "trait:B": "forbidden"]]),
            image: [:], properties: ["trait:C": "required", "trait:D": "forbidden", "hw_disk_bus": "virtio"],
            resources: ["VCPU": 2, "MEMORY_MB": 512, "DISK_GB": 3], required: ["A", "C"], forbidden: ["B", "D"]),
        Case(
            name: "traits of the image of which the boot volume was made", flavor: flavor(), image: nil,
            properties: ["trait:C": "required"],
            resources: ["VCPU": 2, "MEMORY_MB": 512], required: ["C"]),
        Case(
            name: "dedicated processors by the flavor", flavor: flavor(["extra_specs": ["hw:cpu_policy": "dedicated"]]), image: nil,
            resources: ["PCPU": 2, "MEMORY_MB": 512]),
        Case(
            name: "release 0.1.0 ignored what it did not check",
            flavor: flavor(["extra_specs": ["hw:cpu_policy": "dedicated", "trait:X": "required"], "hardware_checked": nil]), image: nil,
            properties: ["hw_cpu_policy": "dedicated", "hw_disk_bus": "sata"], resources: ["VCPU": 2, "MEMORY_MB": 512], required: ["X"]),
        Case(
            name: "dedicated processors by the image", flavor: flavor(), image: nil, properties: ["hw_cpu_policy": "Dedicated"],
            resources: ["PCPU": 2, "MEMORY_MB": 512]),
        Case(
            name: "shared processors by the flavor", flavor: flavor(["extra_specs": ["hw:cpu_policy": "shared"]]), image: nil,
            properties: ["hw_cpu_policy": "dedicated"], resources: ["VCPU": 2, "MEMORY_MB": 512]),
        Case(
            name: "devices that not every host has", flavor: flavor(["extra_specs": ["hw:cpu_policy": "mixed", "hw:tpm_version": "2.0"]]),
            image: nil,
            properties: ["hw_disk_bus": "scsi", "hw_video_model": "xen", "hw_machine_type": "pc-q35-7.2", "hw_time_hpet": "yes"],
            resources: ["VCPU": 2, "MEMORY_MB": 512],
            required: [
                "COMPUTE_STORAGE_BUS_SCSI", "COMPUTE_SECURITY_TPM_2_0", "COMPUTE_SECURITY_TPM_TIS", "CUSTOM_WOLKE_MACHINE_PC_Q35_7_2",
                "CUSTOM_WOLKE_GUEST_HARDWARE",
            ]),
    ]

    @Test(arguments: cases) func needsFollowFromFlavorAndImage(_ item: Case) throws {
        let needs = try ServerNeeds(try item.flavor.decode(), try item.image?.decode(), properties: item.properties)
        #expect(needs.resources == item.resources)
        #expect(needs.requiredTraits == item.required)
        #expect(needs.forbiddenTraits == item.forbidden)
        // The scheduler derives the same from the request.
        let flavor: ServerFlavor = try item.flavor.decode()
        let again = try ServerNeeds(
            resources: needs.resources, requiredTraits: needs.requiredTraits.sorted(), forbiddenTraits: needs.forbiddenTraits.sorted(),
            extraSpecs: flavor.extraSpecs?.texts ?? [:], imageProperties: item.properties.texts,
            isHardwareChecked: flavor.isHardwareChecked)
        #expect(again == needs)
    }

    @Test func theStatementSaysTheSame() async throws {
        try await TestDatabase.with { test in
            for item in ServerNeedsTests.cases {
                let audited = try await test.database.read { connection in
                    try connection.query(
                        """
                        SELECT n.resource_class, n.amount FROM (SELECT \(item.flavor)::jsonb AS flavor, \(item.image)::jsonb AS image,
                                \(try JSONValue(encoding: item.properties))::jsonb AS image_properties) s,
                            LATERAL (\(raw: ServerNeeds.resourcesSQL("s"))) n
                        """
                    ).reduce(into: [String: Int]()) { $0[try $1.string("resource_class")] = try $1.int("amount") }
                }
                #expect(audited == item.resources, "\(item.name)")
            }
        }
    }

    @Test(arguments: [
        ("resources:VCPU", "many", "resources:VCPU"), ("resources:VCPU", "-1", "resources:VCPU"),
        ("resources:VCPU", "+1", "resources:VCPU"),
        ("resources:VCPU", "", "resources:VCPU"), ("resources:VCPU", "2147483648", "resources:VCPU"), ("trait:X", "perhaps", "trait:X"),
    ])
    func invalidExtraSpecsAreRefused(_ name: String, _ value: String, _ named: String) {
        let error = #expect(throws: ResourceError.self) {
            try ServerNeeds(ServerFlavor(vcpus: 1, memoryMiB: 1, rootGiB: 1, extraSpecs: TextMap([name: value])), nil, properties: [:])
        }
        #expect(
            error?.code == .badRequest && error?.message.contains(named) == true && error?.message.contains("Value: \"\(value)\"") == true)
    }

    @Test func aggregatesAndImagesAreUnderstood() throws {
        let needs = try ServerNeeds(
            resources: ["VCPU": 1], extraSpecs: ["aggregate_instance_extra_specs:ssd": "true", "hw:cpu_policy": "dedicated"],
            imageProperties: ["hw_architecture": "amd64", "img_hv_type": "KVM"], isHardwareChecked: true)
        #expect(needs.aggregateSpecs == ["ssd": "true"])
        #expect(needs.architecture == "x86_64" && needs.hypervisorType == "qemu")
    }
}
