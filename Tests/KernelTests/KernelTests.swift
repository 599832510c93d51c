import JSON
import Kernel
import Testing

@Suite struct IdentifierTests {
    @Test func uuidRoundTrip() throws {
        let text = "8e2d7ccb-3b1f-4e62-9c61-0d6c2f4b9f10"
        let uuid = try #require(UUID128(text))
        #expect(uuid.description == text)
        #expect(UUID128(uuid.compact) == uuid)
        for bad in ["", "8e2d7ccb", text + "0", "8e2d7ccb3-b1f-4e62-9c61-0d6c2f4b9f10", "zz2d7ccb-3b1f-4e62-9c61-0d6c2f4b9f10"] {
            #expect(UUID128(bad) == nil, "\(bad)")
        }
    }

    @Test func randomUUIDsHaveVersionAndVariant() {
        let random = SeededRandom(seed: 1)
        for _ in 0..<100 {
            let text = Array(random.uuid().description)
            #expect(text[14] == "4")
            #expect("89ab".contains(text[19]))
        }
    }
}

@Suite struct PercentEncodingTests {
    @Test(arguments: [("a-Z.0_~", "a-Z.0_~"), ("a b/ü", "a%20b%2F%C3%BC"), ("100%+", "100%25%2B"), ("", "")])
    func roundTrip(text: String, encoded: String) {
        #expect(PercentEncoding.encode(text) == encoded)
        for plusIsSpace in [false, true] { #expect(PercentEncoding.decode(encoded, plusIsSpace: plusIsSpace) == Array(text.utf8)) }
    }

    @Test func plusIsASpaceInQueriesOnly() {
        #expect(PercentEncoding.decode("a+b", plusIsSpace: true) == Array("a b".utf8))
        #expect(PercentEncoding.decode("a+b", plusIsSpace: false) == Array("a+b".utf8))
        for malformed in ["%", "%4", "%zz", "a%2"] { #expect(PercentEncoding.decode(malformed, plusIsSpace: false) == nil) }
    }
}

@Suite struct TimeTests {
    @Test(arguments: [
        ("2026-01-31T12:34:56Z", "2026-01-31T12:34:56Z"),
        ("2000-02-29 00:00:00.5+02", "2000-02-28T22:00:00Z"),
        ("1969-12-31T23:59:59Z", "1969-12-31T23:59:59Z"),
        ("2026-11-21", "2026-11-21T00:00:00Z"),
    ])
    func parsesAndPrints(text: String, expected: String) throws {
        #expect(try #require(Timestamp(text)).iso8601 == expected)
    }

    @Test(arguments: ["", "yesterday", "2026-13-01", "2026-01-01T25:00:00Z", "2026-01-01T00:00:00Zx"])
    func refuses(text: String) { #expect(Timestamp(text) == nil) }

    @Test func everyDayRoundTrips() {
        for day in stride(from: Int64(-800_000), to: 800_000, by: 37) {
            let date = CivilDate.fromDays(day)
            #expect(CivilDate.toDays(year: date.year, month: date.month, day: date.day) == day)
        }
    }
}

@Suite struct AddressTests {
    @Test(arguments: [
        ("10.0.0.1", "10.0.0.1"), ("::", "::"), ("::1", "::1"), ("2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"),
        ("fe80::a9fe:a9fe", "fe80::a9fe:a9fe"), ("::ffff:1.2.3.4", "::ffff:102:304"),
    ])
    func canonical(text: String, expected: String) throws {
        #expect(try #require(IPAddress(text)).description == expected)
    }

    @Test(arguments: [
        "1.2.3", "1.2.3.256", "01.2.3.4", "1.2.3.4.5", ":::", "1::2::3", "1:2:3:4:5:6:7:8:9", "g::", "", "1.2.3.4%eth0",
        "256.1.1.1", "1.2.3.1000", "99999999999.1.1.1", "1.2.3.04", "1.2.3.00", "1..2.3", ".1.2.3", "1.2.3.", ".1.2.3.4", "1.2.3.4.", "...",
        " 1.2.3.4", "1.2.3.4 ", "+1.2.3.4", "1.2.3.-4", "1.2.3.4/8", "1.2.3.4\0", "1.2.3.\u{664}", "1.2.3.\u{ff14}", "1.2.3.4\u{301}",
        "1,2,3,4", "0x1.2.3.4", "1.2.3.4:", "::1.2.3", "::1.2.3.04", "1.2.3.4::", "::1.2.3.4:1", "1.2.3.4:\u{301}", "::1.2.3.\u{664}",
    ])
    func refuses(text: String) {
        #expect(IPAddress(text) == nil)
        #expect(IPAddress(text[...]) == nil)
        #expect(IPNetwork(text + "/8") == nil)
    }

    @Test func everyOctetInEveryPlace() {
        for octet in 0...255 {
            for (place, text) in ["\(octet).0.10.200", "0.\(octet).10.200", "0.10.\(octet).200", "0.10.200.\(octet)"].enumerated() {
                let address = IPAddress(text)
                #expect(address.map { Int($0.value >> UInt128(24 - place * 8)) & 255 } == octet)
                #expect(address?.description == text)
                #expect(IPAddress("[\(text)]".dropFirst().dropLast()) == address)
            }
        }
    }

    @Test func networks() throws {
        let network = try #require(IPNetwork("10.1.2.3/24"))
        #expect(network.description == "10.1.2.0/24")
        #expect(network.last.description == "10.1.2.255")
        #expect(network.netmask.description == "255.255.255.0")
        #expect(network.overlaps(try #require(IPNetwork("10.1.0.0/16"))))
        #expect(!network.overlaps(try #require(IPNetwork("10.1.3.0/24"))))
        #expect(IPNetwork("0.0.0.0/0")?.last.description == "255.255.255.255")
        #expect(IPNetwork("::/0")?.contains(try #require(IPAddress("ffff::"))) == true)
    }

    @Test(arguments: [
        ("0.0.0.0/0", "0.0.0.0/0"), ("255.255.255.255/32", "255.255.255.255/32"), ("10.200.30.4/08", "10.0.0.0/8"),
        ("10.1.2.3/024", "10.1.2.0/24"), ("2001:db8::1/128", "2001:db8::1/128"), ("2001:db8::1/64", "2001:db8::/64"),
    ])
    func networksAsText(text: String, expected: String) {
        #expect(IPNetwork(text)?.description == expected)
        #expect(IPNetwork(text[...])?.description == expected)
    }

    @Test(arguments: [
        "10.0.0.0/33", "10.0.0.0/999", "10.0.0.0/0008", "10.0.0.0/", "10.0.0.0", "/8", "/", "", "10.0.0.0//8", "10.0.0.0/8/", "10.0.0.0/+8",
        "10.0.0.0/-1", "10.0.0.0/8 ", "10.0.0.0/\u{668}", "10.0.0.0/8\u{301}", "10.0.0.0/\u{301}8", "::/129", "::1", "10.0.0/8",
    ])
    func noNetwork(text: String) {
        #expect(IPNetwork(text) == nil)
        #expect(IPNetwork(text[...]) == nil)
    }

    @Test func macAddressesAreWrittenInLowercase() throws {
        #expect(try #require(MACAddress("FA:16:3e:00:00:0a")).description == "fa:16:3e:00:00:0a")
        #expect(MACAddress(value: 0).description == "00:00:00:00:00:00")
        #expect(MACAddress(value: .max).description == "ff:ff:ff:ff:ff:ff")
    }

    @Test(arguments: ["01:23:45:67:89:ab", "01-23-45-67-89-AB", "01:23-45:67-89:Ab", ":01::23:45:67:89:ab-"])
    func macsAreRead(text: String) {
        #expect(MACAddress(text)?.value == 0x0123_4567_89ab)
        #expect(MACAddress(text[...])?.value == 0x0123_4567_89ab)
    }

    @Test(arguments: [
        "", ":::::", "fa:16:3e:00:00", "fa:16:3e:00:00:", "fa:16:3e:00:00:0", "fa:16:3e:00:00:0a:01", "fa163e00000a", "fa16:3e:00:00:0a",
        "fa16.3e00.000a", "fa:16:3e:00:0:00a", "f:a1:63:e0:00:00:a", "fa:16:3e:00:00:0g", "fa:16:3e:00:00:+a", "fa:16:3e:00:00:0a ",
        "fa:16:3e:00:00:\u{661}a", "fa:16:3e:00:00:\u{ff10}a", "fa:16:3e:00:00:0a\u{301}", "fa:\u{301}16:3e:00:00:0a",
        "fa:16:3e:00:00:0a\0",
    ])
    func noMAC(text: String) {
        #expect(MACAddress(text) == nil)
        #expect(MACAddress(text[...]) == nil)
    }
}

@Suite struct JSONTests {
    /// Objects with few members are searched linearly, objects with many through an index, with the same results.
    @Test(arguments: [1, 2, 15, 16, 17, 100]) func membersOfAnObject(count: Int) throws {
        var object = JSONObject()
        for number in 0..<count { object["m\(number)"] = .integer(Int64(number)) }
        for number in 0..<count { object["m\(number)"] = .integer(Int64(number * 2)) }
        #expect(object.names == (0..<count).map { "m\($0)" })
        #expect(object["m\(count)"] == nil)
        object["m0"] = nil
        object["new"] = true
        #expect(object.names == (1..<count).map { "m\($0)" } + ["new"])
        for number in 1..<count { #expect(object["m\(number)"] == .integer(Int64(number * 2))) }
        let text = JSONValue.object(object).description
        #expect(try JSONValue.parse(text) == .object(object))
        #expect(throws: JSONParseError.self) { try JSONValue.parse(text.dropLast() + ",\"new\":1}") }
    }

    @Test(arguments: [
        #"{"a":[1,-2,3.5,true,false,null,"x\n\u00e9\ud83d\ude00"],"b":{}}"#, "[]", "\"\"", " [ 1 , 2 ] ", "-0.5e3",
    ])
    func roundTrips(text: String) throws {
        let value = try JSONValue.parse(text)
        #expect(try JSONValue.parse(value.encoded) == value)
    }

    @Test(arguments: [
        "", "{", "[1,]", "{\"a\":1,}", "{\"a\":1,\"a\":2}", "01", "1.", "\"\u{1}\"", "\"\\ud800\"", "nul", "[1]x", "{a:1}",
    ])
    func refuses(text: String) { #expect(throws: JSONParseError.self) { try JSONValue.parse(text) } }

    @Test func depthIsLimited() {
        let deep = String(repeating: "[", count: 100_000)
        #expect(throws: JSONParseError.self) { try JSONValue.parse(deep) }
    }

    @Test func writerMatchesParser() throws {
        var writer = JSONWriter()
        writer.object {
            $0.field("name", "a\"b\\c\n")
            $0.field("count", -42)
            $0.arrayField("list") { list in
                list.value(1)
                list.null()
                list.object { $0.field("x", true) }
            }
        }
        let expected: JSONValue = ["name": "a\"b\\c\n", "count": -42, "list": [1, nil, ["x": true]]]
        #expect(try JSONValue.parse(writer.bytes) == expected)
    }
}
