import Foundation
import XCTest

@testable import EdgeSAMKit

final class PartsTests: XCTestCase {
  func testIoUIsOfPixels() throws {
    let one = mask([0, 1, 1, 0])
    XCTAssertEqual(one.iou(mask([0, 0, 1, 1])), 1.0 / 3, accuracy: 1e-12)
    XCTAssertEqual(one.iou(one), 1)
    XCTAssertEqual(mask([0, 0, 0, 0]).iou(mask([0, 0, 0, 0])), 1)
    XCTAssertEqual(one.iou(mask([0, 1])), 0)
    XCTAssertEqual(one.area, 2)
    XCTAssertEqual([one[0, 0], one[1, 0], one[2, 0], one[3, 0]], [false, true, true, false])
  }

  func testBitsBehindTheLastPixelAreNobodys() throws {
    let read = try Mask(width: 3, height: 1, packed: [0b1011_1111])
    XCTAssertEqual(read.bits, [0b1010_0000])
    XCTAssertEqual(read.area, 2)
    XCTAssertThrowsError(try Mask(width: 3, height: 2, packed: [0]))
  }

  func testAMaskIsDrawnInOneColourMultipliedByAlpha() {
    XCTAssertEqual(
      mask([0, 1]).rgba(red: 255, green: 100, blue: 0, alpha: 128), [0, 0, 0, 0, 128, 50, 0, 128])
  }

  func testNumbersThatNoModelHasAreRefusedBeforeTheyAreMultiplied() {
    let fit = FixtureRunner.model(16)
    func refused(size: Int = 16, slots: Int = 3, prompts: Int = 1, low: Int = 4) -> Bool {
      let model = ModelDescription(
        encoder: fit.encoder, decoder: fit.decoder, picture: .init(size: size, padRGB: fit.picture.padRGB),
        prompt: .init(slots: slots, promptsPerCall: prompts, maskInput: false),
        mask: .init(lowResolution: low, threshold: 0, score: "iou", pointMasks: 3))
      do {
        _ = try Pipeline(model: model, runner: FixtureRunner())
      } catch SegmentationError.invalidModel {
        return true
      } catch {
        XCTFail("\(error)")
      }
      return false
    }
    XCTAssertFalse(refused())
    for number in [Int.min, -1, 0, 1 << 20, 1 << 62, Int.max] {
      XCTAssertTrue(refused(size: number), "\(number)")
      XCTAssertTrue(refused(slots: number), "\(number)")
      XCTAssertTrue(refused(prompts: number), "\(number)")
      XCTAssertTrue(refused(low: number), "\(number)")
    }
  }

  func testHalfPrecisionIsReadAsTheProcessorReadsIt() throws {
    #if arch(arm64) || os(Linux)
      for bits in UInt16.min...UInt16.max {
        let expected = Float(Float16(bitPattern: bits))
        if expected.isNaN {
          XCTAssertTrue(Tensor.single(bits).isNaN)
        } else {
          XCTAssertEqual(Tensor.single(bits).bitPattern, expected.bitPattern, "\(bits)")
        }
      }
    #endif
    XCTAssertEqual(Tensor.single(0x3c00), 1)
    XCTAssertEqual(Tensor.single(0xc000), -2)
    XCTAssertEqual(Tensor.single(1), 0x1p-24)
  }

  func testATensorIsMadeOfZerosInPagesOfItsOwn() {
    let tensor = Tensor(TensorSpec(name: "a", shape: [3, 5], dtype: .float16, layout: "X"))
    XCTAssertEqual(tensor.data.count, 30)
    XCTAssertTrue(tensor.data.allSatisfy { $0 == 0 })
    XCTAssertEqual(UInt(bitPattern: tensor.data.baseAddress) % 16384, 0)
  }

  func testShapesThatNoTensorHasAreRefused() {
    for shape in [[], [0], [3, -1], [1 << 30], [1 << 20, 1 << 20], [Int.max, Int.max]] {
      XCTAssertNil(TensorSpec.bytes(shape: shape, dtype: .float32), "\(shape)")
    }
    XCTAssertNil(TensorSpec.bytes(shape: [2, 8, 8], dtype: .image))
    XCTAssertEqual(TensorSpec.bytes(shape: [1, 3, 8, 8], dtype: .image), 256)
    let json = Data(#"{"name":"a","shape":[0],"dtype":"uint8","layout":"X"}"#.utf8)
    XCTAssertThrowsError(try JSONDecoder().decode(TensorSpec.self, from: json))
  }

  func testEmptySlotsAreLabelledMinusOne() throws {
    let runner = FixtureRunner()
    let pipeline = try Pipeline(model: FixtureRunner.model(16, .float32), runner: runner)
    pipeline.use(try Picture(width: 32, height: 8, rgb: [UInt8](repeating: 0, count: 768)))
    try pipeline.decode(Prompt(points: [.init(x: 3, y: 4.5), .init(x: 1, y: 2, label: .background)]))
    XCTAssertEqual(runner.labels, [1, 0, -1])
    XCTAssertEqual(runner.coords, [1.5, 2.25, 0.5, 1, 0, 0])
  }

  func testPromptsThatDoNotFitAreRefused() throws {
    let pipeline = try Pipeline(model: FixtureRunner.model(16), runner: FixtureRunner())
    XCTAssertThrowsError(try pipeline.decode(Prompt(points: [.init(x: 1, y: 1)]))) {
      XCTAssertEqual($0 as? SegmentationError, .noImage)
    }
    pipeline.use(try Picture(width: 2, height: 2, rgb: [UInt8](repeating: 0, count: 12)))
    let tooMany = [Prompt.Point](repeating: .init(x: 1, y: 1), count: 4)
    for points in [[], [Prompt.Point(x: 0, y: 0, label: .empty)], tooMany] {
      XCTAssertThrowsError(try pipeline.decode(Prompt(points: points)))
    }
  }

  func testWhichMaskWasChosenIsToldByItsLogits() throws {
    for best in 0..<4 {
      let runner = FixtureRunner()
      runner.logits = [-2, 1, 3, -1]
      runner.best = best
      let pipeline = try Pipeline(model: FixtureRunner.model(16), runner: runner)
      pipeline.use(try Picture(width: 9, height: 4, rgb: [UInt8](repeating: 0, count: 108)))
      pipeline.pre()
      try pipeline.encode()
      try pipeline.decode(Prompt(points: [.init(x: 1, y: 1)]))
      XCTAssertEqual(pipeline.post().area, runner.logits[best] > 0 ? 36 : 0)
      XCTAssertEqual(pipeline.best(), best)
      XCTAssertEqual(pipeline.scores(), [0, 1, 2, 3])
    }
  }

  func testAPictureOfTheSameSizeReplacesTheLastOne() throws {
    let runner = FixtureRunner()
    let pipeline = try Pipeline(model: FixtureRunner.model(16), runner: runner)
    for shade in [UInt8(10), 200] {
      pipeline.use(try Picture(width: 16, height: 16, rgb: [UInt8](repeating: shade, count: 768)))
      pipeline.pre()
      try pipeline.encode()
      XCTAssertEqual(runner.image?[0], Float(shade))
    }
  }

  func testTensorsThatDoNotFitEachOtherAreRefused() {
    let good = FixtureRunner.model(16)
    let spec = { TensorSpec(name: $0, shape: $1, dtype: .float32, layout: "X") }
    let other = good.decoder.inputs.dropFirst()
    let bad: [ModelDescription] = [
      with(good, decoder: .init(inputs: good.decoder.inputs, outputs: [spec("masks", [1, 4, 4, 4])])),
      with(good, decoder: .init(inputs: [spec("image_embeddings", [1, 5])] + other, outputs: good.decoder.outputs)),
      with(good, decoder: .init(inputs: Array(other), outputs: good.decoder.outputs)),
      with(good, encoder: .init(inputs: [spec("image", [1, 3, 8, 8])], outputs: good.encoder.outputs)),
      with(good, encoder: .init(inputs: [spec("picture", [1, 3, 16, 16])], outputs: good.encoder.outputs)),
    ]
    for model in bad {
      XCTAssertThrowsError(try Pipeline(model: model, runner: FixtureRunner())) { error in
        guard case SegmentationError.invalidModel = error else { return XCTFail("\(error)") }
      }
    }
  }

  func testPicturesAreTurnedAsTheyAreSeen() throws {
    // What Pillow's exif_transpose gives of the pixels 0 1 2 / 3 4 5.
    let seen: [(Int, [UInt8])] = [
      (3, [0, 1, 2, 3, 4, 5]), (3, [2, 1, 0, 5, 4, 3]), (3, [5, 4, 3, 2, 1, 0]), (3, [3, 4, 5, 0, 1, 2]),
      (2, [0, 3, 1, 4, 2, 5]), (2, [3, 0, 4, 1, 5, 2]), (2, [5, 2, 4, 1, 3, 0]), (2, [2, 5, 1, 4, 0, 3]),
    ]
    func picture(_ width: Int, _ pixels: [UInt8]) throws -> Picture {
      try Picture(width: width, height: pixels.count / width, rgb: pixels.flatMap { [$0, $0 + 10, $0 + 20] })
    }
    XCTAssertEqual(Picture.Orientation.allCases.count, seen.count)
    for (orientation, (width, pixels)) in zip(Picture.Orientation.allCases, seen) {
      XCTAssertEqual(try picture(3, [0, 1, 2, 3, 4, 5]).upright(from: orientation), try picture(width, pixels))
      XCTAssertEqual(try picture(1, [7]).upright(from: orientation), try picture(1, [7]))
    }
    XCTAssertEqual(try picture(1, [0, 1, 2]).upright(from: .right), try picture(3, [2, 1, 0]))
  }

  func testDamagedPicturesAreRefused() throws {
    let bad = [
      "", "P5 2 1 255\n123456", "P6 2 1 255\n12345", "P6 2 1 255\n1234567", "P6 2 1 65535\n123456", "P6 0 1 255\n",
      "P6 2", "P6 99999999 99999999 255\n", "P6 999999999999 1 255\n", "P6 -1 1 255\n", "P6 2 1 255",
    ]
    for text in bad {
      XCTAssertThrowsError(try Picture(ppm: Data(text.utf8)), text) { XCTAssertTrue($0 is SegmentationError) }
    }
    let good = try Picture(ppm: Data("P6 # a remark\n2\t1\n255\n123456".utf8))
    XCTAssertEqual(good.rgb, [UInt8]("123456".utf8))
  }

  func testEveryErrorIsOneLineAndAHint() {
    let errors: [SegmentationError] = [
      .invalidPackage("a\nb"), .invalidModel("a\nb"), .loadFailed("a\nb"), .runFailed("a\r\nb"),
      .invalidPrompt("a\nb"),
      .invalidPicture("a\nb"), .tooLarge("a\nb"), .noImage, .unavailable("a\nb"),
    ]
    for error in errors {
      XCTAssertFalse((error.errorDescription ?? "\n").contains(where: \.isNewline))
      XCTAssertFalse((error.recoverySuggestion ?? "\n").contains(where: \.isNewline))
    }
    XCTAssertEqual(errors[3].message, "a b")
  }

  private func mask(_ pixels: [Int]) -> Mask {
    var mask = Mask(width: pixels.count, height: 1)
    for (x, pixel) in pixels.enumerated() {
      mask[x, 0] = pixel == 1
    }
    return mask
  }

  private func with(
    _ model: ModelDescription, encoder: ModelDescription.Graph? = nil, decoder: ModelDescription.Graph? = nil
  ) -> ModelDescription {
    ModelDescription(
      encoder: encoder ?? model.encoder, decoder: decoder ?? model.decoder, picture: model.picture,
      prompt: model.prompt, mask: model.mask)
  }
}
