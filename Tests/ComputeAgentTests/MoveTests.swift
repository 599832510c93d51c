import Contracts
import JSON
import Kernel
import Testing

@testable import ComputeAgentCore

/// Guests that move between hosts while they run.
@Suite struct MoveTests {
    private static let job = "99999999-9999-4999-8999-999999999999"

    private func leaving(_ changes: JSONObject = [:]) throws -> DesiredServer {
        var document: JSONObject = [
            "jobs": [
                [
                    "id": .string(MoveTests.job), "kind": "migrate",
                    "migration": [
                        "endpoint": ["uri": "qemu+tls://host-2/system", "address": "host-2", "directory": "/there/s"], "volumes": [],
                    ],
                ]
            ]
        ]
        for member in changes.members { document[member.name] = member.value }
        return try Fixture.server(document)
    }

    private func record(_ server: DesiredServer, jobState: ServerJobReport.State? = nil) -> LocalServerRecord {
        var record = LocalServerRecord(serverID: server.id)
        _ = record.accept(server)
        if let jobState { record.jobs = [LocalJob(id: MoveTests.job, state: jobState)] }
        return record
    }

    /// The control plane decides where the guest belongs: starting it here as well would give its volumes two writers.
    @Test func aGuestThatMayHaveLeftIsNotTouched() throws {
        let server = try leaving()
        for state in [ServerJobReport.State.running, .done, .failed] {
            let record = record(server, jobState: state)
            #expect(Reconciler.plan(server, observed: nil, record: record).isEmpty, "\(state)")
            #expect(Reconciler.plan(server, observed: ObservedDomain(power: .paused), record: record).isEmpty, "\(state)")
            #expect(Reconciler.plan(server, observed: ObservedDomain(power: .shutoff, offReason: .destroyed), record: record).isEmpty)
        }
        // Without the job, the server belongs to this host again.
        let stays = try Fixture.server(["generation": 2])
        #expect(Reconciler.plan(stays, observed: nil, record: record(stays, jobState: .failed)).contains(.start(paused: false)))
        let absent = try leaving(["power": "absent"])
        #expect(Reconciler.plan(absent, observed: nil, record: record(absent, jobState: .done)) == [.removeFiles])
    }

    @Test func anExpectedGuestIsNeverStarted() throws {
        let server = try Fixture.server(["power": "expected"])
        #expect(Reconciler.plan(server, observed: nil, record: record(server)) == [.provision, .plug(server.ports)])
        for power in [ObservedPower.running, .paused] {
            #expect(Reconciler.plan(server, observed: ObservedDomain(power: power), record: record(server)).isEmpty)
        }
        let left = ObservedDomain(power: .shutoff, offReason: .destroyed)
        #expect(Reconciler.plan(server, observed: left, record: record(server)) == [.undefine, .provision, .plug(server.ports)])
    }

    @Test func aWithdrawnGuestThatHasArrivedIsKept() throws {
        let server = try Fixture.server(["power": "absent", "operation": ["id": "op1", "kind": "withdraw"]])
        for power in [ObservedPower.running, .paused] {
            #expect(Reconciler.plan(server, observed: ObservedDomain(power: power), record: record(server)).isEmpty)
        }
        var arriving = ObservedDomain(power: .paused)
        arriving.isMoving = true
        #expect(Reconciler.plan(server, observed: arriving, record: record(server)) == [.destroy, .undefine, .removeFiles])
        let absent = try Fixture.server(["power": "absent"])
        #expect(Reconciler.plan(absent, observed: ObservedDomain(power: .running), record: record(absent)).first == .destroy)
    }

    /// The move can be reverted until it is confirmed.
    @Test func aServerThatLeavesCanLeaveItsDisks() throws {
        let leaves = try Fixture.server(["power": "absent", "keep_disks": true, "generation": 2])
        var record = record(leaves)
        record.pluggedPorts = [.init(id: "p", tap: "tap", networkID: "n")]
        #expect(
            Reconciler.plan(leaves, observed: ObservedDomain(power: .shutoff), record: record) == [
                .undefine, .unplug(record.pluggedPorts),
            ])
        record.goneSince = Timestamp(microseconds: 1)
        record.hasKeptDisks = true
        #expect(Reconciler.plan(leaves, observed: nil, record: record).isEmpty)
        let confirmed = try Fixture.server(["power": "absent", "generation": 3])
        #expect(Reconciler.plan(confirmed, observed: nil, record: record) == [.removeFiles])
        #expect(try LocalServerRecord(document: record.document).hasKeptDisks)
    }

    private static let running = """
        <domain type='kvm'><os><nvram>/here/s/nvram.fd</nvram></os><devices><emulator>/usr/bin/qemu</emulator>
        <disk type='file' device='disk'><source file='/here/s/root.qcow2'/><backingStore type='file'><format type='qcow2'/>
        <source file='/here-images/i'/><backingStore/></backingStore><target dev='vda'/><serial>root</serial></disk>
        <disk type='file' device='disk'><source file='/volumes/v'/><target dev='vdb'/>
        <serial>55555555-5555-4555-8555-555555555555</serial></disk>
        <disk type='file' device='disk'><source file='/here/s/config.iso'/><target dev='vdz'/><readonly/></disk>
        <serial type='unix'><source mode='bind' path='/here/s/serial.sock'/><log file='/here/s/console.log' append='on'/></serial>
        <graphics type='vnc' port='5901' autoport='yes' listen='10.0.0.1'><listen type='address' address='10.0.0.1'/></graphics>
        <address type='pci' slot='0x07'/></devices></domain>
        """

    private var definition: MigrationXML {
        get throws {
            var endpoint = MigrationEndpoint(
                uri: "qemu+tls://host-2/system", address: nil, directory: "/there/s", emulator: "/opt/qemu", vncListen: nil)
            endpoint.backing = "/there-images/i"
            let volume = ServerSpec.Volume(
                id: "55555555-5555-4555-8555-555555555555", attachmentID: "", device: "vdb", bootIndex: nil,
                connection: Enclosed(document: ["driver": "file", "path": "/elsewhere/v", "format": "raw"]))
            return MigrationXML(directory: "/here/s", order: .init(endpoint: endpoint, volumes: [volume]))
        }
    }

    @Test func theOtherHostHasItsOwnFiles() throws {
        let text = try definition.document(MoveTests.running).rendered
        for wanted in [
            "/there/s/root.qcow2", "/there-images/i", "/elsewhere/v", "/there/s/config.iso", "/there/s/serial.sock",
            "/there/s/console.log", "/there/s/nvram.fd", "<emulator>/opt/qemu</emulator>", "<listen type='none'/>", "slot='0x07'",
        ] { #expect(text.contains(wanted), "\(wanted)") }
        for gone in ["/here", "/volumes/v", "10.0.0.1"] { #expect(!text.contains(gone), "\(gone)") }
    }

    /// A volume without an export name still uses the other host's connection.
    @Test func theSourcesConnectionIsNeverKept() throws {
        func text(_ connection: JSONValue) throws -> String {
            let volume = ServerSpec.Volume(
                id: "55555555-5555-4555-8555-555555555555", attachmentID: "", device: "vdb", bootIndex: nil,
                connection: Enclosed(document: connection))
            let endpoint = MigrationEndpoint(
                uri: "qemu+tls://host-2/system", address: nil, directory: "/there/s", emulator: nil, vncListen: nil)
            return try MigrationXML(directory: "/here/s", order: .init(endpoint: endpoint, volumes: [volume]))
                .document(MoveTests.running).rendered
        }
        let migrated = try text(["driver": "nbd", "host": "storage-2", "port": 10809])
        #expect(migrated.contains("storage-2") && !migrated.contains("/volumes/v"), "\(migrated)")
        #expect(throws: FormError.self) { try text(["driver": "nbd", "host": "storage-2"]) }
    }

    /// A volume that both hosts are connected to must not be copied onto itself.
    @Test func onlyOwnDisksThatCanBeWrittenAreCopied() throws {
        #expect(try definition.copiedDisks(MoveTests.running) == ["vda"])
    }

    @Test("S12: an order to move a guest names no program and no foreign driver")
    func s12EndpointsAreChecked() throws {
        for (uri, address) in [
            ("qemu+ext:///system?command=/bin/sh", "host-2"), ("test:///default", "host-2"), ("qemu+tls://host 2/system", "host-2"),
            ("qemu+tls://host-2/system", "host-2;reboot"), ("qemu+tls://host-2/system", ""),
        ] {
            #expect(throws: FormError.self, "\(uri) \(address)") {
                _ = try leaving([
                    "jobs": [
                        [
                            "id": .string(MoveTests.job), "kind": "migrate",
                            "migration": [
                                "endpoint": ["uri": .string(uri), "address": .string(address), "directory": "/there/s"], "volumes": [],
                            ],
                        ]
                    ]
                ])
            }
        }
        #expect(MigrationXML.isUsable(address: "2001:db8::1"))
        #expect(MigrationXML.isUsable(uri: "qemu+unix:///system?socket=/run/a.sock&pkipath=/etc/pki"))
        for parameter in ["command=/bin/sh", "netcat=/bin/sh", "keyfile=/x", "no_verify=1", "socket=/a&command=/b", "x"] {
            #expect(!MigrationXML.isUsable(uri: "qemu+ssh://h/system?\(parameter)"), "\(parameter)")
        }
        #expect(MigrationXML.dataURI("2001:db8::1") == "tcp://[2001:db8::1]")
    }
}
