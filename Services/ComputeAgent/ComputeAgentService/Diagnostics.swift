import ComputeAgentCore
import JSON
import Kernel
import Libvirt

/// A running server's statistics in the formats of Compute's diagnostics.
enum Diagnostics {
    /// The format since microversion 2.48.
    static func document(
        _ server: DesiredServer, power: String, figures: [String: DomainStatistic]
    ) -> JSONValue {
        func number(_ name: String) -> Int? { if case .integer(let value)? = figures[name] { Int(value) } else { nil } }
        func value(_ name: String) -> JSONValue { number(name).map { JSONValue($0) } ?? .null }
        func text(_ name: String) -> String? { if case .text(let text)? = figures[name] { text } else { nil } }

        let processors = (0..<(number("vcpu.current") ?? server.vcpus)).map { index -> JSONValue in
            ["id": JSONValue(index), "time": value("vcpu.\(index).time"), "utilisation": .null]
        }
        let disks = (0..<(number("block.count") ?? 0)).map { index -> JSONValue in
            [
                "read_bytes": value("block.\(index).rd.bytes"), "read_requests": value("block.\(index).rd.reqs"),
                "write_bytes": value("block.\(index).wr.bytes"), "write_requests": value("block.\(index).wr.reqs"),
                "errors_count": .null,
            ]
        }
        let interfaces = (0..<(number("net.count") ?? 0)).map { index -> JSONValue in
            let tap = text("net.\(index).name")
            func figure(_ name: String) -> JSONValue { value("net.\(index).\(name)") }
            return [
                "mac_address": JSONValue(server.ports.first { $0.tapName == tap }?.mac.description),
                "rx_octets": figure("rx.bytes"), "rx_packets": figure("rx.pkts"), "rx_errors": figure("rx.errs"),
                "rx_drop": figure("rx.drop"), "rx_rate": .null, "tx_octets": figure("tx.bytes"),
                "tx_packets": figure("tx.pkts"), "tx_errors": figure("tx.errs"), "tx_drop": figure("tx.drop"),
                "tx_rate": .null,
            ]
        }
        return [
            "state": .string(power), "driver": "libvirt", "hypervisor": "qemu", "hypervisor_os": "linux",
            "uptime": .null, "config_drive": .bool(server.configDrive), "num_cpus": JSONValue(processors.count),
            "num_nics": JSONValue(interfaces.count), "num_disks": JSONValue(disks.count),
            "cpu_details": .array(processors), "nic_details": .array(interfaces), "disk_details": .array(disks),
            "memory_details": [
                "maximum": JSONValue(server.memoryMiB), "used": number("balloon.rss").map { JSONValue($0 / 1024) } ?? .null,
            ],
        ]
    }

    /// The format before microversion 2.48, which depended on the hypervisor: the names are those of Nova's libvirt driver.
    static func ofHypervisor(_ figures: [String: DomainStatistic], memoryMiB: Int) -> JSONValue {
        func value(_ name: String) -> JSONValue? { if case .integer(let value)? = figures[name] { JSONValue(Int(value)) } else { nil } }
        func count(_ name: String) -> Int { value(name)?.intValue ?? 0 }
        func text(_ name: String) -> String? { if case .text(let text)? = figures[name] { text } else { nil } }

        var document: JSONObject = ["memory": JSONValue(memoryMiB << 10)]
        for index in 0..<count("vcpu.current") { document["cpu\(index)_time"] = value("vcpu.\(index).time") }
        for index in 0..<count("block.count") {
            let name = text("block.\(index).name") ?? "disk\(index)"
            for (ours, libvirt) in [("read_req", "rd.reqs"), ("read", "rd.bytes"), ("write_req", "wr.reqs"), ("write", "wr.bytes")] {
                document["\(name)_\(ours)"] = value("block.\(index).\(libvirt)")
            }
            // QEMU does not count errors; Nova shows libvirt's -1.
            document["\(name)_errors"] = -1
        }
        for index in 0..<count("net.count") {
            let name = text("net.\(index).name") ?? "net\(index)"
            for way in ["rx", "tx"] {
                for (ours, libvirt) in [("", "bytes"), ("_packets", "pkts"), ("_errors", "errs"), ("_drop", "drop")] {
                    document["\(name)_\(way)\(ours)"] = value("net.\(index).\(way).\(libvirt)")
                }
            }
        }
        for (ours, libvirt) in [
            ("memory-actual", "balloon.current"), ("memory-rss", "balloon.rss"), ("memory-available", "balloon.available"),
        ] {
            document[ours] = value(libvirt)
        }
        return .object(document)
    }
}
