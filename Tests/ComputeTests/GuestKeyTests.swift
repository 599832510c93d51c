import Foundation
import GuestKeys
import JSON
import Kernel
import Testing

/// Extra specs and image properties behave as declared.
@Suite struct GuestKeyTests {
    /// Every value of a key's kind, or some if there are infinitely many.
    private static func values(_ key: GuestKey) -> [String] {
        switch key.values {
        case .text:
            if case .limited(let served, _) = key.effect { served.map { $0.replacing("*", with: "i440fx-9.0") } + ["other"] } else { ["x"] }
        case .flag: ["True", "no", "on", "0"]
        case .number(let range):
            Set([range.lowerBound, max(range.lowerBound, min(range.upperBound, 1)), max(range.lowerBound, min(range.upperBound, 7))]).map {
                String($0)
            }
        case .words(let words): words
        }
    }

    private static func refusal(_ key: GuestKey, _ value: String) -> String? {
        let pair = [key.name.replacing("*", with: key.name.hasSuffix(":*") || key.name.hasSuffix(".*") ? "X" : "1:X"): value]
        do {
            try GuestKey.check(specs: key.place == .flavor ? pair : [:], properties: key.place == .image ? pair : [:])
            return nil
        } catch { return (error as? ResourceError)?.message ?? "\(error)" }
    }

    @Test("S26: an extra spec or property has its effect, or the server is refused with the reason")
    func s26DeclaredKeysAreServedOrRefused() {
        #expect(Set(GuestKey.all.map { "\($0.place) \($0.name)" }).count == GuestKey.all.count)
        for key in GuestKey.all {
            let name = String(key.name.prefix { $0 != "*" })
            for value in GuestKeyTests.values(key) {
                let refusal = GuestKeyTests.refusal(key, value)
                switch key.effect {
                case .implemented, .metadata: #expect(refusal == nil, "\(key.name)=\(value)")
                case .refused(let lacking):
                    #expect(
                        refusal?.contains(name) == true && refusal?.contains(lacking) == true, "\(key.name)=\(value): \(refusal ?? "taken")"
                    )
                case .limited(let served, let lacking):
                    let normal =
                        if case .flag = key.values { NovaBoolean.read(value) == true ? "true" : "false" } else { value.lowercased() }
                    let isServed = served.contains { $0.hasSuffix("*") ? normal.hasPrefix($0.dropLast()) : $0 == normal }
                    #expect((refusal == nil) == isServed, "\(key.name)=\(value): \(refusal ?? "taken")")
                    if !isServed { #expect(refusal?.contains(name) == true && refusal?.contains(lacking) == true, "\(refusal ?? "")") }
                }
            }
            if case .text = key.values { continue }
            let wrong = GuestKeyTests.refusal(key, "perhaps")
            #expect(wrong?.contains("It must be") == true && wrong?.contains(name) == true, "\(key.name): \(wrong ?? "taken")")
        }
    }

    @Test func namesOfNovasNamespacesAreCheckedAndOthersAreFree() throws {
        for name in ["hw:cpu_polici", "quota:x", "os:y", "pci_passthrough:z"] {
            #expect(throws: ResourceError.self, "\(name)") { try GuestKey.checkSpec(name, "1") }
        }
        for name in ["color", "note:color", "company:hw:x", "hw"] { try GuestKey.checkSpec(name, "1") }
        #expect(throws: ResourceError.self) { try GuestKey.checkSpec("hw:cpu_policy", "perhaps") }
        try GuestKey.checkSpec("hw:cpu_policy", "dedicated")
        try GuestKey.check(
            specs: ["color": "red"], properties: ["os_version": "12", "hw_unheard_of": "x", "owner_specified.openstack.md5": ""])
    }

    @Test func theDocumentationIsTheDeclaration() throws {
        let path = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent("../../docs/guest-keys.md").path
        let text = try String(contentsOfFile: path, encoding: .utf8)
        let tables = text.range(of: "## Extra specs of flavors").map { String(text[$0.lowerBound...]) } ?? ""
        #expect(tables == GuestKey.reference, "docs/guest-keys.md must end in:\n\(GuestKey.reference)")
    }
}
