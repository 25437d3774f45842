/// A picture: red, green and blue, one byte each, row by row.
public struct Picture: Sendable, Equatable {
  /// The most pixels that a picture may have.
  public static let mostPixels = 1 << 26

  /// Pixels of a row.
  public let width: Int
  /// Rows.
  public let height: Int
  /// `height x width x 3` bytes.
  public let rgb: [UInt8]

  /// A picture of these bytes.
  ///
  /// - Throws: ``SegmentationError/invalidPicture(_:)`` for a side below 1 or another number of bytes,
  ///   ``SegmentationError/tooLarge(_:)`` above ``mostPixels``.
  public init(width: Int, height: Int, rgb: [UInt8]) throws {
    try Self.check(width: width, height: height)
    guard rgb.count == 3 * width * height else {
      throw SegmentationError.invalidPicture("\(rgb.count) bytes for \(width) x \(height) pixels")
    }
    self.width = width
    self.height = height
    self.rgb = rgb
  }

  /// Refuses sides that no picture may have.
  static func check(width: Int, height: Int) throws {
    guard width > 0, height > 0 else {
      throw SegmentationError.invalidPicture("a picture of \(width) x \(height) pixels")
    }
    let (pixels, overflow) = width.multipliedReportingOverflow(by: height)
    guard !overflow, pixels <= mostPixels else {
      throw SegmentationError.tooLarge("a picture of \(width) x \(height) pixels; the limit is \(mostPixels)")
    }
  }
}
