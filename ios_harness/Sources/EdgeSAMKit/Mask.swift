/// Which pixels of a picture are the object: one bit each, row by row, rows begin at a byte, the first bit is the
/// highest (as in a binary PBM).
public struct Mask: Sendable, Equatable {
  /// Pixels of a row.
  public let width: Int
  /// Rows.
  public let height: Int
  /// Bytes of a row.
  public let stride: Int
  /// `height x stride` bytes; bits beyond the width are 0.
  public internal(set) var bits: [UInt8]

  /// An empty mask.
  public init(width: Int, height: Int) {
    self.width = width
    self.height = height
    stride = (width + 7) / 8
    bits = [UInt8](repeating: 0, count: stride * height)
  }

  /// A mask of packed rows.
  ///
  /// - Throws: ``SegmentationError/invalidPicture(_:)`` for a side below 1 or another number of bytes,
  ///   ``SegmentationError/tooLarge(_:)`` above ``Picture/mostPixels``.
  public init(width: Int, height: Int, packed: [UInt8]) throws {
    try Picture.check(width: width, height: height)
    self.init(width: width, height: height)
    guard packed.count == bits.count else {
      throw SegmentationError.invalidPicture("\(packed.count) bytes for a mask of \(width) x \(height) pixels")
    }
    bits = packed
    let unused = 8 * stride - width
    if unused > 0 {
      // What a writer leaves behind the last pixel is nobody's.
      for row in 0..<height {
        bits[row * stride + stride - 1] &= UInt8(truncatingIfNeeded: 0xff << unused)
      }
    }
  }

  /// Whether the pixel at column `x` and row `y` is the object's.
  public subscript(x: Int, y: Int) -> Bool {
    get {
      precondition(x >= 0 && x < width && y >= 0 && y < height, "(\(x), \(y)) is outside of the mask")
      return bits[y * stride + x / 8] & (0x80 >> UInt8(x % 8)) != 0
    }
    set {
      precondition(x >= 0 && x < width && y >= 0 && y < height, "(\(x), \(y)) is outside of the mask")
      let bit: UInt8 = 0x80 >> UInt8(x % 8)
      if newValue {
        bits[y * stride + x / 8] |= bit
      } else {
        bits[y * stride + x / 8] &= ~bit
      }
    }
  }

  /// Pixels of the object.
  public var area: Int {
    bits.reduce(0) { $0 + $1.nonzeroBitCount }
  }

  /// The object in one colour and the rest clear: `4 x width x height` bytes of red, green, blue and alpha, the colour
  /// multiplied by alpha, as Core Graphics and GPUs take it.
  public func rgba(red: UInt8, green: UInt8, blue: UInt8, alpha: UInt8) -> [UInt8] {
    func times(_ colour: UInt8) -> UInt8 { UInt8((Int(colour) * Int(alpha) + 127) / 255) }
    let pixel = [times(red), times(green), times(blue), alpha]
    var bytes = [UInt8](repeating: 0, count: 4 * width * height)
    for y in 0..<height {
      for x in 0..<width where self[x, y] {
        let at = 4 * (y * width + x)
        for channel in 0..<4 {
          bytes[at + channel] = pixel[channel]
        }
      }
    }
    return bytes
  }

  /// Intersection over union, 0 to 1: 1 for two empty masks, 0 for masks of different sizes.
  public func iou(_ other: Mask) -> Double {
    guard width == other.width, height == other.height else { return 0 }
    var both = 0
    var either = 0
    for (mine, theirs) in zip(bits, other.bits) {
      both += (mine & theirs).nonzeroBitCount
      either += (mine | theirs).nonzeroBitCount
    }
    return either == 0 ? 1 : Double(both) / Double(either)
  }
}
