import Foundation
import HarnessCore
import XCTest

final class StatisticsTests: XCTestCase {
  private struct Fixture: Decodable {
    struct Statistics: Decodable {
      let times: [Double]
      let percentiles: [String: Double]
    }

    let statistics: Statistics
  }

  /// Against what the Python side computed: android_harness/tools/make_fixtures.py.
  func testPercentilesAreTheDesktops() throws {
    let file = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../../android_harness/core/src/test/resources/fixtures/cases.json")
    let known = try JSONDecoder().decode(Fixture.self, from: Data(contentsOf: file)).statistics
    XCTAssertEqual(known.percentiles.count, 6)
    for (percent, expected) in known.percentiles {
      let share = try XCTUnwrap(Double(percent)) / 100
      XCTAssertEqual(try XCTUnwrap(Statistics.percentile(share, of: known.times)), expected, accuracy: 1e-9, percent)
    }
  }

  func testOfNothingThereIsNone() {
    XCTAssertNil(Statistics.percentile(0.5, of: []))
    XCTAssertEqual(Statistics.percentile(0.9, of: [7]), 7)
  }
}
