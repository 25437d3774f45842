import Foundation
import XCTest

@testable import EdgeSAMKit

/// Against what the Python side computed: android_harness/tools/make_fixtures.py.
final class FixturesTests: XCTestCase {
  private struct Cases: Decodable {
    struct Case: Decodable {
      let size: Int
      let point: [Double]
      let framed: [Float]
      let stability: Float
    }

    let cases: [Case]
  }

  private static let folder = URL(fileURLWithPath: #filePath)
    .deletingLastPathComponent().appendingPathComponent("../../../android_harness/core/src/test/resources/fixtures")
  /// Much higher than wide, where Pillow 13 begins along columns: bytes differ by one at most.
  private static let tall = 3

  private func file(_ name: String) throws -> Data {
    try Data(contentsOf: Self.folder.appendingPathComponent(name))
  }

  private func cases() throws -> [Cases.Case] {
    let cases = try JSONDecoder().decode(Cases.self, from: file("cases.json")).cases
    XCTAssertEqual(cases.count, 5)
    return cases
  }

  /// The encoder's input for a case's picture.
  private func frame(_ number: Int, _ size: Int, _ dtype: TensorSpec.DType, _ layout: String) throws -> Tensor {
    let runner = FixtureRunner()
    let pipeline = try Pipeline(model: FixtureRunner.model(size, dtype, layout), runner: runner)
    pipeline.use(try Picture(ppm: file("\(number).ppm")))
    pipeline.pre()
    try pipeline.encode()
    return try XCTUnwrap(runner.image)
  }

  func testPicturesAreResizedAndPaddedToTheSameBytes() throws {
    for (number, one) in try cases().enumerated() {
      let expected = try Picture(ppm: file("\(number).frame.ppm"))
      let found = try bytes(frame(number, one.size, .uint8, "NHWC"))
      assertSame(found, expected.rgb, number)
    }
  }

  func testAPictureForCoreMLIsTheSameBlueFirstAndOpaque() throws {
    for (number, one) in try cases().enumerated() {
      let expected = try Picture(ppm: file("\(number).frame.ppm"))
      let found = try bytes(frame(number, one.size, .image, "NCHW"))
      var rgb: [UInt8] = []
      for at in stride(from: 0, to: found.count, by: 4) {
        rgb += [found[at + 2], found[at + 1], found[at]]
      }
      assertSame(rgb, expected.rgb, number)
      XCTAssertEqual(Set(stride(from: 3, to: found.count, by: 4).map { found[$0] }), [255])
    }
  }

  func testFloatsByChannelAreTheSameButForTheExactPadding() throws {
    for (number, one) in try cases().enumerated() {
      let expected = try Picture(ppm: file("\(number).frame.ppm"))
      let found = try frame(number, one.size, .float32, "NCHW")
      let plane = one.size * one.size
      var rgb: [UInt8] = []
      for pixel in 0..<plane {
        for channel in 0..<3 {
          rgb.append(UInt8(found[channel * plane + pixel].rounded(.toNearestOrEven)))
        }
      }
      assertSame(rgb, expected.rgb, number)
    }
  }

  func testMasksAreTheSameToThePixel() throws {
    for (number, one) in try cases().enumerated() {
      let expected = try Mask(pbm: file("\(number).pbm"))
      let (logits, side) = try logits(number, one)
      let geometry = Geometry(width: expected.width, height: expected.height, size: one.size)
      var mask = Mask(width: expected.width, height: expected.height)
      Upscaling(geometry: geometry, low: side, size: one.size).threshold(logits, at: 0, into: &mask)
      XCTAssertEqual(mask, expected, "case \(number)")
      XCTAssertEqual(mask.pbm, try file("\(number).pbm"))
    }
  }

  func testMasksAreAsStable() throws {
    for (number, one) in try cases().enumerated() {
      let (logits, side) = try logits(number, one)
      let found = Segmentation(
        mask: Mask(width: 1, height: 1), score: nil, index: 0, logits: logits, logitsSide: side,
        timings: .init(decode: .zero, post: .zero))
      XCTAssertEqual(found.stability(), one.stability)
      XCTAssertEqual(found.stability(threshold: 1e9), 0, "an empty mask")
    }
  }

  func testPointsComeToTheSamePlace() throws {
    for (number, one) in try cases().enumerated() {
      let picture = try Picture(ppm: file("\(number).ppm"))
      let geometry = Geometry(width: picture.width, height: picture.height, size: one.size)
      XCTAssertEqual(geometry.frameX(one.point[0]), one.framed[0])
      XCTAssertEqual(geometry.frameY(one.point[1]), one.framed[1])
    }
  }

  private func logits(_ number: Int, _ one: Cases.Case) throws -> (numbers: [Float], side: Int) {
    let raw = try file("\(number).logits")
    let side = one.size / 4
    let numbers = (0..<side * side).map { index in
      Float(
        bitPattern: raw.withUnsafeBytes {
          UInt32(littleEndian: $0.loadUnaligned(fromByteOffset: 4 * index, as: UInt32.self))
        })
    }
    return (numbers, side)
  }

  private func bytes(_ tensor: Tensor) -> [UInt8] {
    withExtendedLifetime(tensor) { [UInt8](tensor.data) }
  }

  private func assertSame(_ found: [UInt8], _ expected: [UInt8], _ number: Int) {
    XCTAssertEqual(found.count, expected.count)
    let most = zip(found, expected).map { abs(Int($0) - Int($1)) }.max() ?? 0
    XCTAssertLessThanOrEqual(most, number == Self.tall ? 1 : 0, "case \(number)")
  }
}
