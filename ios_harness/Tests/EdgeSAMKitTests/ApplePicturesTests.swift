#if canImport(CoreGraphics) && canImport(VideoToolbox)
  import CoreGraphics
  import CoreVideo
  import XCTest

  @testable import EdgeSAMKit

  /// On Apple's systems only: no machine has run it yet.
  final class ApplePicturesTests: XCTestCase {
    /// A red pixel and a blue one on its right.
    private let rgb: [UInt8] = [255, 0, 0, 0, 0, 255]

    private func image() throws -> CGImage {
      let bytes = Data([255, 0, 0, 255, 0, 0, 255, 255])
      return try XCTUnwrap(
        CGImage(
          width: 2, height: 1, bitsPerComponent: 8, bitsPerPixel: 32, bytesPerRow: 8,
          space: XCTUnwrap(CGColorSpace(name: CGColorSpace.sRGB)),
          bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.noneSkipLast.rawValue),
          provider: XCTUnwrap(CGDataProvider(data: bytes as CFData)), decode: nil, shouldInterpolate: false,
          intent: .defaultIntent))
    }

    func testAnImageIsReadPixelByPixel() throws {
      let picture = try Picture(image())
      XCTAssertEqual([picture.width, picture.height], [2, 1])
      XCTAssertEqual(picture.rgb, rgb)
    }

    func testAnImageIsTurnedUpright() throws {
      let picture = try Picture(image(), orientation: .right)
      XCTAssertEqual([picture.width, picture.height], [1, 2])
      XCTAssertEqual(picture.rgb, rgb)
    }

    func testAPixelBufferIsReadWhateverItsOrderOfColours() throws {
      var made: CVPixelBuffer?
      CVPixelBufferCreate(nil, 2, 1, kCVPixelFormatType_32BGRA, nil, &made)
      let buffer = try XCTUnwrap(made)
      CVPixelBufferLockBaseAddress(buffer, [])
      let pixels = try XCTUnwrap(CVPixelBufferGetBaseAddress(buffer)).assumingMemoryBound(to: UInt8.self)
      for (place, byte) in [0, 0, 255, 255, 255, 0, 0, 255].enumerated() {
        pixels[place] = UInt8(byte)
      }
      CVPixelBufferUnlockBaseAddress(buffer, [])
      let picture = try Picture(buffer)
      XCTAssertEqual([picture.width, picture.height], [2, 1])
      for (found, expected) in zip(picture.rgb, rgb) {
        XCTAssertEqual(Int(found), Int(expected), accuracy: 8)  // a buffer without a colour space is taken for video
      }
    }

    func testAMaskIsDrawnOverThePicture() throws {
      let drawn = try XCTUnwrap(Mask(width: 2, height: 1, packed: [0b0100_0000]).image(alpha: 255))
      XCTAssertEqual([drawn.width, drawn.height], [2, 1])
      XCTAssertEqual(try Picture(drawn).rgb.suffix(3), [255, 148, 0])
    }

    func testConvertingIsTimedApart() async throws {
      let nowhere = URL(fileURLWithPath: "/")
      let session = try await SegmentationSession(
        model: FixtureRunner.model(16), encoder: nowhere, decoder: nowhere, cache: nowhere,
        runner: { FixtureRunner() })
      let times = try await session.setImage(image())
      XCTAssertGreaterThan(times.convert, .zero)
    }
  }
#endif
