import ImageCore
import JSON
import Testing

@Suite struct ImageRuleTests {
    @Test func rangesAreRead() throws {
        #expect(try ByteRange.parse("bytes=0-3", size: 10)?.range == 0..<4)
        #expect(try ByteRange.parse("bytes=4-", size: 10)?.range == 4..<10)
        #expect(try ByteRange.parse("bytes=-3", size: 10)?.range == 7..<10)
        #expect(try ByteRange.parse("bytes=5-99", size: 10)?.range == 5..<10)
        #expect(try ByteRange.parse("lines=1-2", size: 10) == nil)
        #expect(try ByteRange.parse("bytes=5-1", size: 10) == nil)
        #expect(throws: ByteRange.Unsatisfiable.self) { try ByteRange.parse("bytes=10-", size: 10) }
        #expect(throws: ByteRange.Unsatisfiable.self) { try ByteRange.parse("bytes=-5", size: 0) }
    }

    @Test func filtersAreRead() throws {
        #expect(try ImageFilter.list("in:a,\"b,c\"", name: "name") == .oneOf(["a", "b,c"]))
        #expect(try ImageFilter.list("plain", name: "name") == .equals("plain"))
        #expect(throws: (any Error).self) { try ImageFilter.list("in:\"a", name: "name") }
        #expect(throws: (any Error).self) { try ImageFilter.time("gt:yesterday", name: "created_at") }
    }

    @Test func everyStateHasAWayOut() {
        for state in ImageStatus.allCases {
            #expect(ImageStatus.transitions.contains { $0.from == state && $0.to != state })
        }
        #expect(ImageStatus.queued.after(.deactivate) == nil)
        #expect(ImageStatus.active.after(.upload) == nil)
    }
}
