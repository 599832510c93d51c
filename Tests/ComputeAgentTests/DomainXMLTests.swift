import JSON
import Kernel
import Testing

@testable import ComputeAgentCore

@Suite struct DomainXMLTests {
    private func document(_ changes: JSONObject = [:], _ options: DomainOptions) throws -> XMLTree {
        let server = try Fixture.server(changes)
        return DomainXML(server: server, files: ServerFiles(directory: "/s"), options: options).document
    }

    @Test("S12: text of users stays text in a domain") func s12TextOfUsersStaysText() throws {
        let evil = "a' onload='x'><disk type='file'/>&<!--\u{1}"
        let tree = try document(["name": .string(evil), "project_id": .string(evil)], DomainOptions(virtType: .qemu))
        let back = try XMLTree.parse(tree.rendered)
        #expect(back.child("metadata")?.child("wolke:server")?["name"] == evil.replacing("\u{1}", with: "\u{fffd}"))
        #expect(back.child("devices")?.all("disk").count == 1)
        // Properties of an image select among known models.
        let image: JSONValue = [
            "id": "ffffffff-0000-0000-0000-000000000001", "disk_format": "raw",
            "properties": [
                "hw_machine_type": .string("pc-" + evil), "hw_disk_bus": .string(evil), "hw_vif_model": .string(evil),
                "hw_video_model": .string(evil),
            ],
        ]
        let built = try XMLTree.parse(document(["image": image], DomainOptions(virtType: .qemu)).rendered)
        #expect(built.child("devices")?.all("disk").count == 1)
    }

    @Test func translationAndKVMDiffer() throws {
        let tcg = try document([:], DomainOptions(virtType: .qemu))
        #expect(tcg["type"] == "qemu")
        #expect(tcg.child("cpu")?.child("model")?.text == "qemu64")
        #expect(tcg.child("os")?.child("type")?["machine"] == "pc")
        let kvm = try document([:], DomainOptions(virtType: .kvm))
        #expect(kvm["type"] == "kvm")
        #expect(kvm.child("cpu")?["mode"] == "host-model")
        let ports = kvm.child("devices")?.all("controller").filter { $0["model"] == "pcie-root-port" } ?? []
        #expect(ports.count > 12)
    }

    @Test func disksAreOpenedWithAFormatAndFoundByTheirVolume() throws {
        let tree = try document(
            ["volumes": [Fixture.volume], "config_drive": true, "ephemeral_gb": 1, "swap_mb": 64],
            DomainOptions(virtType: .qemu))
        let disks = tree.child("devices")?.all("disk") ?? []
        #expect(disks.map { $0.child("target")?["dev"] } == ["vda", "vdb", "vdx", "vdy", "vdz"])
        #expect(disks.allSatisfy { $0.child("driver")?["type"] != nil })
        #expect(disks[1].child("serial")?.text == Fixture.volumeID)
        #expect(disks[0].child("boot")?["order"] == "1")
    }

    private func rescue(_ changes: JSONObject = [:]) -> JSONValue {
        var rescue: JSONObject = [
            "image": ["id": "ffffffff-0000-0000-0000-000000000002", "disk_format": "qcow2", "properties": [:]], "stable": false,
            "device": "disk", "bus": "virtio",
        ]
        for (name, value) in changes.members { rescue[name] = value }
        return .object(rescue)
    }

    @Test func aRescuedServerHasItsOwnDiskAsTheSecond() throws {
        let tree = try document(["rescue": rescue(), "config_drive": true], DomainOptions(virtType: .qemu))
        let disks = tree.child("devices")?.all("disk") ?? []
        #expect(disks.map { $0.child("target")?["dev"] } == ["vda", "vdb", "vdz"])
        #expect(disks.map { $0.child("source")?["file"] } == ["/s/rescue.qcow2", "/s/root.qcow2", "/s/config.iso"])
        #expect(disks[0].child("boot")?["order"] == "1" && disks[1].child("boot") == nil)
    }

    @Test func aStableRescueAddsADisk() throws {
        let tree = try document(
            ["rescue": rescue(["stable": true, "device": "cdrom", "bus": "scsi"]), "volumes": [Fixture.volume]],
            DomainOptions(virtType: .qemu))
        let disks = tree.child("devices")?.all("disk") ?? []
        #expect(disks.map { $0.child("target")?["dev"] } == ["vda", "vdb", "sda"])
        #expect(disks[2]["device"] == "cdrom" && disks[2].child("target")?["bus"] == "scsi" && disks[2].child("readonly") != nil)
        #expect(disks.map { $0.child("boot")?["order"] } == ["2", nil, "1"])
        #expect(tree.child("devices")?.all("controller").contains { $0["model"] == "virtio-scsi" } == true)
        let virtio = try document(
            ["rescue": rescue(["stable": true]), "volumes": [Fixture.volume]], DomainOptions(virtType: .qemu))
        #expect(virtio.child("devices")?.all("disk").last?.child("target")?["dev"] == "vdw")
    }

    @Test("S1 S2: every layer of every disk has its driver and its file named")
    func s1_everyDiskLayerIsNamed() throws {
        let server = try Fixture.server(
            ["volumes": [Fixture.volume], "config_drive": true, "ephemeral_gb": 1, "swap_mb": 64])
        let backing = DomainXML.Backing(path: "/images/one.disk.qcow2", format: "qcow2")
        let document = DomainXML(
            server: server, files: ServerFiles(directory: "/s"), options: DomainOptions(virtType: .qemu), backing: backing
        ).document
        let disks = document.child("devices")?.all("disk") ?? []
        #expect(disks.count == 5)
        for disk in disks {
            #expect(disk.child("driver")?["type"] != nil)
            guard let below = disk.child("backingStore") else {
                Issue.record("libvirt would probe \(disk.rendered)")
                continue
            }
            guard disk.child("target")?["dev"] == "vda" else {
                #expect(below.children.isEmpty)
                continue
            }
            #expect(below.child("format")?["type"] == "qcow2")
            #expect(below.child("source")?["file"] == "/images/one.disk.qcow2")
            #expect(below.child("backingStore")?.children.isEmpty ?? false)
        }
    }

    @Test("S1 S2: every layer of a rescued server's disks has its driver and its file named", arguments: [false, true])
    func s1_everyDiskLayerOfARescueIsNamed(isStable: Bool) throws {
        let server = try Fixture.server(["volumes": [Fixture.volume], "rescue": rescue(["stable": .bool(isStable)])])
        let document = DomainXML(
            server: server, files: ServerFiles(directory: "/s"), options: DomainOptions(virtType: .qemu),
            backing: .init(path: "/images/own.qcow2", format: "qcow2"), rescueBacking: .init(path: "/images/rescue.raw", format: "raw")
        ).document
        let disks = document.child("devices")?.all("disk") ?? []
        #expect(disks.count == (isStable ? 3 : 2))
        let below = Dictionary(
            uniqueKeysWithValues: disks.compactMap { disk in disk.child("backingStore").map { (disk.child("source")?["file"] ?? "", $0) } })
        for (file, image, format) in [("/s/root.qcow2", "/images/own.qcow2", "qcow2"), ("/s/rescue.qcow2", "/images/rescue.raw", "raw")] {
            let backing = try #require(below[file])
            #expect(backing.child("format")?["type"] == format)
            #expect(backing.child("source")?["file"] == image)
            #expect(backing.child("backingStore")?.children.isEmpty ?? false)
        }
        #expect(disks.allSatisfy { $0.child("driver")?["type"] != nil })
    }

    /// No guest's console listens on a network, unless the operator configures an address.
    @Test("S16: guests' displays listen on no address, and their serial line is reachable only from the host")
    func s16NoConsoleIsReachable() throws {
        let devices = try document([:], DomainOptions(virtType: .qemu)).child("devices")
        let displays = devices?.all("graphics") ?? []
        #expect(displays.map { $0["type"] } == ["vnc"] && displays.flatMap { $0.all("listen") }.map { $0["type"] } == ["none"])
        for name in ["serial", "console", "channel"] {
            for device in devices?.all(name) ?? [] {
                #expect(["file", "pty", "unix"].contains(device["type"] ?? ""), "\(device.rendered)")
            }
        }
        #expect(devices?.all("redirdev") == [] && devices?.all("hostdev") == [] && devices?.all("filesystem") == [])
        var options = DomainOptions(virtType: .qemu)
        options.vncListen = "127.0.0.1"
        #expect(try document([:], options).child("devices")?.child("graphics")?["type"] == "vnc")
    }

    @Test func bootsFromAVolume() throws {
        guard case .object(var volume) = Fixture.volume else { return }
        volume["device"] = "/dev/vda"
        volume["boot_index"] = 0
        let tree = try document(["volumes": [.object(volume)]], DomainOptions(virtType: .qemu))
        let disks = tree.child("devices")?.all("disk") ?? []
        #expect(disks.count == 1)
        #expect(disks[0].child("boot")?["order"] == "1")
    }

    @Test func sharedVolumesHaveNoCacheAndNoLock() throws {
        guard case .object(var volume) = Fixture.volume, case .object(var connection)? = volume["connection"] else { return }
        connection["multiattach"] = true
        volume["connection"] = .object(connection)
        let options = DomainOptions(virtType: .qemu)
        var cached = options
        cached.diskCache = "writeback"
        let shared = try document(["volumes": [.object(volume)]], cached).child("devices")?.all("disk").last
        #expect(shared?.child("shareable") != nil && shared?.child("driver")?["cache"] == "none")
        let own = try document(["volumes": [Fixture.volume]], cached).child("devices")?.all("disk").last
        #expect(own?.child("shareable") == nil && own?.child("driver")?["cache"] == "writeback")
        connection["format"] = "qcow2"
        volume["connection"] = .object(connection)
        let error = #expect(throws: FormError.self) { try Fixture.server(["volumes": [.object(volume)]]) }
        #expect("\(error.map { "\($0)" } ?? "")".contains("raw"))
    }

    @Test func interfacesUseTheAgentsTap() throws {
        let off = try document([:], DomainOptions(virtType: .qemu)).child("devices")?.child("interface")
        #expect(off?["type"] == "ethernet")
        #expect(off?.child("target")?["managed"] == "no")
        #expect(off?.child("driver")?.child("host")?["csum"] == "off")
        let on = try document([:], DomainOptions(virtType: .qemu, nicOffloads: true)).child("devices")?.child("interface")
        #expect(on?.child("driver") == nil)
    }

    @Test func machineOfTheImage() throws {
        let image: JSONValue = [
            "id": "ffffffff-0000-0000-0000-000000000001", "disk_format": "raw",
            "properties": ["hw_machine_type": "evil' x='", "hw_firmware_type": "uefi"],
        ]
        let tree = try document(["image": image], DomainOptions(virtType: .qemu))
        #expect(tree.child("os")?.child("type")?["machine"] == "q35")
        #expect(tree.child("os")?.child("loader") != nil)
    }

    @Test func observedDevicesAreRead() throws {
        let tree = try document(["volumes": [Fixture.volume]], DomainOptions(virtType: .qemu))
        var observed = ObservedDomain(power: .running)
        try observed.readDevices(xml: "<?xml version='1.0'?>\n<!-- x -->\n" + tree.rendered)
        #expect(observed.disks.map(\.target) == ["vda", "vdb"])
        #expect(observed.interfaces.map(\.tap) == ["tapbbbbbbbb-00"])
    }

    @Test(arguments: ["", "<a>", "<a></b>", "<a b></a>", "<!DOCTYPE a><a/>", "<a>&x;</a>", "<a/><b/>", "<a b='1/>"])
    func brokenXMLIsRefused(text: String) {
        #expect(throws: XMLParseError.self) { try XMLTree.parse(text) }
    }
}
