import OVSDB
import Settings
import Testing

@testable import NetworkService

/// The settings for connections to OVN's databases.
@Suite struct NorthboundSettingsTests {
    @Test(
        "S22: an address with TLS needs key and certificates, and these need such an address",
        arguments: [
            ("ovn_nb: ssl:a:1", "ssl: addresses need"),
            ("ovn_sb: ssl:a:1\n  ovn_private_key: /k\n  ovn_certificate: /c", "ssl: addresses need"),
            ("ovn_ca_certificate: /c", "need an ssl: address"),
            ("ovn_nb: ssl:a:1\n  ovn_private_key: /no/k\n  ovn_certificate: /no/c\n  ovn_ca_certificate: /no/a", "/no/k"),
            ("ovn_nb: tls:a:1", "ssl:HOST:PORT"),
        ])
    func s22_settings(_ lines: String, _ problem: String) throws {
        let settings = try Settings.parse(
            "network:\n  \(lines)\n", name: "f", environment: [:], schema: .section("network", NetworkOptions.settingsKeys))
        let error = #expect(throws: (any Error).self) { try NorthboundConfiguration(settings) }
        #expect("\(error.map { "\($0)" } ?? "")".contains(problem), "\(String(describing: error))")
    }
}
