import XCTest

@testable import HarnessCore

final class JSONTests: XCTestCase {
  func testEveryKindOfValueIsRead() throws {
    let read = try parse(#"{"a": [1, -2.5e1, true, null, "x\u00e9\n\ud83d\ude00é"], "b": {}}"# + "\n")
    XCTAssertEqual(read["a"], [1, -25.0, true, nil, "x\u{e9}\n\u{1f600}\u{e9}"])
    XCTAssertEqual(read["b"], [:])
    XCTAssertNil(read["c"])
  }

  func testWholeNumbersAreExactAndToldFromOthers() throws {
    let read = try parse(#"{"a":[9223372036854775807,-9223372036854775808,1.0,1e0,9223372036854775808,0,-0]}"#)
    XCTAssertEqual(read["a"]?.list?.map(\.whole), [Int.max, Int.min, nil, nil, nil, 0, 0])
    XCTAssertEqual(read["a"]?.list?[4].number, 9.223372036854775808e18)
    XCTAssertNotEqual(try parse(#"{"a":true}"#)["a"], 1)
  }

  func testOfTwoMembersOfOneNameTheLastCounts() throws {
    let read = try parse(#"{"a":1,"b":2,"a":3}"#)
    XCTAssertEqual(read["a"], 3)
    XCTAssertEqual(read.names, ["a", "b"])
  }

  func testWhatIsWrittenIsReadAgain() throws {
    let object: JSONObject = [
      "text": "\"\\ \u{1} \u{20ac} \u{1f600}", "numbers": [.whole(Int.max), -1, 1e-7, 0.1, 1e300], "nothing": nil,
      "inner": ["flag": false],
    ]
    let line = JSONText.of(object)
    XCTAssertTrue(line.utf8.allSatisfy { (0x20...0x7e).contains($0) }, line)
    XCTAssertEqual(try parse(line), object)
    XCTAssertEqual(JSONText.of(["a": [.number(.nan), .number(.infinity)]]), #"{"a":[null,null]}"#)
  }

  func testBadLinesAreRefused() {
    let bad = [
      "", "[]", "1", "{", #"{"a"}"#, #"{"a":}"#, #"{"a":1,}"#, #"{"a":1}x"#, "{a:1}", #"{"a":NaN}"#, #"{"a":1e999}"#,
      #"{"a":01}"#, #"{"a":-01}"#, #"{"a":- 1}"#, #"{"a":.5}"#, #"{"a":1.}"#, #"{"a":1e}"#, #"{"a":"# + "\"\t\"}",
      #"{"a":"\x"}"#, #"{"a":"\u12"}"#, #"{"a":"\u+123"}"#, #"{"a":"\ud800"}"#, #"{"a":"\udc00\ud800"}"#, #"{"a":"x}"#,
      #"{"a":tru}"#, #"{"a":[1 2]}"#, #"{"a":Infinity}"#, #"{"a":-"#, #"{"a":"\"#, "\u{feff}{}",
    ]
    for line in bad {
      XCTAssertEqual(code { _ = try parse(line) }, "bad-line", line)
    }
    for bytes: [UInt8] in [[0xff], [0xc0, 0x80], [0xed, 0xa0, 0x80], [0xe2, 0x82]] {
      let line = Array(#"{"a":""#.utf8) + bytes + Array(#""}"#.utf8)
      XCTAssertEqual(code { _ = try JSONReader.object(line) }, "bad-line", "\(bytes)")
    }
  }

  func testDepthAndLengthAreLimited() {
    XCTAssertEqual(code { _ = try parse(#"{"a":"# + String(repeating: "[", count: 100_000)) }, "bad-line")
    XCTAssertEqual(code { _ = try JSONReader.object([UInt8](repeating: 32, count: (1 << 20) + 1)) }, "too-large")
    let long = #"{"a":""# + String(repeating: #"\n"#, count: 500_000) + #""}"#
    XCTAssertEqual(try parse(long)["a"]?.text?.count, 500_000)
  }

  func testDamagedLinesNeverDoAnythingElse() {
    let good = Array(#"{"a":[1,-2.5e1,true,null,"x\u00e9"],"b":{"c":"d"}}"#.utf8)
    var chance = Chance(seed: 1)
    for _ in 0..<5000 {
      var line = Array(good.prefix(1 + chance.below(good.count)))
      for _ in 0...chance.below(4) {
        line[chance.below(line.count)] = UInt8(chance.below(256))
      }
      XCTAssertTrue([nil, "bad-line"].contains(code { _ = try JSONReader.object(line) }))
    }
  }

  private func parse(_ line: String) throws -> JSONObject {
    try JSONReader.object(Array(line.utf8))
  }
}

/// Numbers that are the same in every run.
struct Chance {
  private var state: UInt64

  init(seed: UInt64) {
    state = seed
  }

  /// A whole number from 0 to below `limit`.
  mutating func below(_ limit: Int) -> Int {
    state = state &* 6_364_136_223_846_793_005 &+ 1_442_695_040_888_963_407
    return Int(state >> 33) % limit
  }
}
