#if canImport(CoreGraphics) && canImport(VideoToolbox)
  import CoreGraphics
  import CoreVideo
  import Foundation
  import ImageIO
  import VideoToolbox

  extension Picture {
    /// Draws an image in sRGB, as it is seen.
    ///
    /// - Parameters:
    ///   - image: its pixels.
    ///   - orientation: how they lie, which a `CGImage` does not know; photographs tell it in their EXIF data.
    /// - Throws: ``SegmentationError/invalidPicture(_:)``, ``SegmentationError/tooLarge(_:)``.
    public init(_ image: CGImage, orientation: CGImagePropertyOrientation = .up) throws {
      try Self.check(width: image.width, height: image.height)
      let pixels = image.width * image.height
      var rgba = [UInt8](repeating: 0, count: 4 * pixels)
      let drawn = rgba.withUnsafeMutableBytes { memory in
        guard let space = CGColorSpace(name: CGColorSpace.sRGB),
          let context = CGContext(
            data: memory.baseAddress, width: image.width, height: image.height, bitsPerComponent: 8,
            bytesPerRow: 4 * image.width, space: space, bitmapInfo: CGImageAlphaInfo.noneSkipLast.rawValue)
        else { return false }
        context.draw(image, in: CGRect(x: 0, y: 0, width: image.width, height: image.height))
        return true
      }
      guard drawn else { throw SegmentationError.invalidPicture("an image that cannot be drawn") }
      let rgb = [UInt8](unsafeUninitializedCapacity: 3 * pixels) { target, count in
        for pixel in 0..<pixels {
          for channel in 0..<3 {
            target[3 * pixel + channel] = rgba[4 * pixel + channel]
          }
        }
        count = 3 * pixels
      }
      let picture = try Picture(width: image.width, height: image.height, rgb: rgb)
      self = picture.upright(from: Orientation(rawValue: Int(orientation.rawValue)) ?? .up)
    }

    /// Copies a camera's or a video's frame, whatever its pixel format.
    ///
    /// - Parameters:
    ///   - buffer: the frame.
    ///   - orientation: how its pixels lie: `.right` for an iPhone's camera at the back, held upright.
    /// - Throws: ``SegmentationError/invalidPicture(_:)``, ``SegmentationError/tooLarge(_:)``.
    public init(_ buffer: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up) throws {
      var image: CGImage?
      let status = VTCreateCGImageFromCVPixelBuffer(buffer, options: nil, imageOut: &image)
      guard let image else {
        throw SegmentationError.invalidPicture("a pixel buffer that cannot be read: Video Toolbox's status \(status)")
      }
      try self.init(image, orientation: orientation)
    }
  }

  extension SegmentationSession {
    /// As ``setImage(_:)-(Picture)``, for an image of Core Graphics.
    ///
    /// - Parameters:
    ///   - image: its pixels.
    ///   - orientation: how they lie. Prompts and masks are in pixels of the picture as it is seen.
    /// - Throws: ``SegmentationError``, `CancellationError`.
    @discardableResult
    public func setImage(
      _ image: CGImage, orientation: CGImagePropertyOrientation = .up
    ) throws -> ImageTimings {
      try setImage { try Picture(image, orientation: orientation) }
    }

    /// As ``setImage(_:)-(Picture)``, for a frame of a camera or a video. The buffer must not be written meanwhile; on
    /// a camera's own queue, make a ``Picture`` of it, and set that.
    ///
    /// - Parameters:
    ///   - buffer: the frame.
    ///   - orientation: how its pixels lie. Prompts and masks are in pixels of the picture as it is seen.
    /// - Throws: ``SegmentationError``, `CancellationError`.
    @discardableResult
    public func setImage(
      _ buffer: CVPixelBuffer, orientation: CGImagePropertyOrientation = .up
    ) throws -> ImageTimings {
      try setImage { try Picture(buffer, orientation: orientation) }
    }

    private func setImage(converting convert: () throws -> Picture) throws -> ImageTimings {
      try Task.checkCancellation()
      let began = ContinuousClock.now
      let picture = try convert()
      let converted = began.duration(to: .now)
      var timings = try setImage(picture)
      timings.convert = converted
      return timings
    }
  }

  extension Mask {
    /// The object in one colour, the rest clear: to be drawn over the picture.
    ///
    /// - Parameters:
    ///   - red: the colour's, as `green` and `blue`.
    ///   - alpha: how much of the picture it covers, up to 255.
    /// - Returns: nil where there is no memory for it, or for a mask without pixels.
    public func image(red: UInt8 = 255, green: UInt8 = 148, blue: UInt8 = 0, alpha: UInt8 = 128) -> CGImage? {
      let bytes = Data(rgba(red: red, green: green, blue: blue, alpha: alpha))
      guard let provider = CGDataProvider(data: bytes as CFData), let space = CGColorSpace(name: CGColorSpace.sRGB)
      else { return nil }
      return CGImage(
        width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 32, bytesPerRow: 4 * width, space: space,
        bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.premultipliedLast.rawValue), provider: provider,
        decode: nil, shouldInterpolate: false, intent: .defaultIntent)
    }
  }
#endif

#if canImport(UIKit)
  import UIKit

  extension Picture {
    /// Draws an image as it is seen, whatever way the camera was held.
    ///
    /// - Throws: ``SegmentationError/invalidPicture(_:)``, ``SegmentationError/tooLarge(_:)``.
    public init(_ image: UIImage) throws {
      guard let pixels = image.cgImage else {
        throw SegmentationError.invalidPicture("an image without pixels")
      }
      try self.init(pixels, orientation: image.imageOrientation.exif)
    }
  }

  extension UIImage.Orientation {
    /// The same, as EXIF counts: UIKit has numbers of its own.
    fileprivate var exif: CGImagePropertyOrientation {
      switch self {
      case .up: return .up
      case .upMirrored: return .upMirrored
      case .down: return .down
      case .downMirrored: return .downMirrored
      case .left: return .left
      case .leftMirrored: return .leftMirrored
      case .right: return .right
      case .rightMirrored: return .rightMirrored
      @unknown default: return .up
      }
    }
  }
#endif
