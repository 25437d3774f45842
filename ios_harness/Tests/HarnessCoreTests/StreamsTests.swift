import XCTest

@testable import HarnessCore

/// Against the recorded streams that every implementation of the protocol is tested with.
final class StreamsTests: XCTestCase {
  private let folder = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
    .appendingPathComponent("../../../tests/protocol/streams").standardizedFileURL

  func testRecordedStreamsAreReadAsExpected() throws {
    let names = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    var count = 0
    for file in names where (file.hasSuffix(".jsonl") || file.hasSuffix(".txt")) && file != "requests.jsonl" {
      let name = String(file.prefix { $0 != "." })
      let expected = try expected(name)
      let transport = expected["transport"]?.text
      var reader = StreamReader(duplex: transport == "duplex")
      for line in lines(try bytes(file)) {
        if transport != "instrumentation" {
          reader.take(line)
        } else if line.starts(with: StreamReader.status) {
          reader.take(Array(line.dropFirst(StreamReader.status.count)))
        }
      }
      let code = reader.code ?? (reader.ending == "whole" ? nil : "truncated")
      XCTAssertEqual(JSON(code), expected["code"], name)
      XCTAssertEqual(JSON(reader.ending), expected["ending"], name)
      XCTAssertEqual(counts(reader.events), expected["events"], name)
      XCTAssertEqual(counts(reader.skipped), expected["skipped"], name)
      var jobs: JSONObject = [:]
      for (job, status) in reader.jobs {
        jobs[job] = JSON(status)
      }
      XCTAssertEqual(.object(jobs), expected["jobs"], name)
      count += 1
    }
    XCTAssertGreaterThan(count, 20)
  }

  func testRecordedRequestsAreAnsweredAsExpected() throws {
    let codes = try XCTUnwrap(expected("requests")["codes"]?.list)
    let requests = lines(try bytes("requests.jsonl"))
    XCTAssertEqual(requests.count, codes.count)
    for (index, line) in requests.enumerated() {
      XCTAssertEqual(JSON(code { _ = try Request.read(line) }), codes[index], "line \(index + 1)")
    }
  }

  func testDamagedRequestsAreFaultsOfTheProtocol() throws {
    let codes = ["bad-line", "bad-path", "too-large", "unknown-type", "unknown-version"]
    var chance = Chance(seed: 2)
    for good in lines(try bytes("requests.jsonl")).prefix(8) {
      for _ in 0..<150 {
        var line = good
        for _ in 0...chance.below(3) {
          let place = chance.below(line.count)
          switch chance.below(3) {
          case 0: line[place] = UInt8(chance.below(256))
          case 1: line.removeSubrange(place..<min(line.count, place + 1 + chance.below(30)))
          default: line.insert(contentsOf: line[(place / 2)..<place], at: place)
          }
          if line.isEmpty {
            line = [10]
          }
        }
        if let code = code({ _ = try Request.read(line) }) {
          XCTAssertTrue(codes.contains(code), code)
        }
      }
    }
  }

  private func bytes(_ name: String) throws -> [UInt8] {
    Array(try Data(contentsOf: folder.appendingPathComponent(name)))
  }

  private func expected(_ name: String) throws -> JSONObject {
    try JSONReader.object(try bytes("\(name).expected.json"))
  }

  private func counts(_ counts: [String: Int]) -> JSON {
    var object: JSONObject = [:]
    for (name, count) in counts {
      object[name] = .whole(count)
    }
    return .object(object)
  }
}
