/// Resizes pictures bilinearly, smoothing while it shrinks, with the numbers that Pillow's BILINEAR gives: weights in
/// 22-bit fixed point, along rows first, both passes rounded to bytes. Pillow 13 begins along columns for pictures at
/// least twice as high as wide; bytes then differ by one at most. Made once for a pair of sizes.
final class Resampling {
  private static let fractionBits: Int32 = 22

  private let width: Int
  private let height: Int
  private let newWidth: Int
  private let newHeight: Int
  private let columns: Axis?
  private let rows: Axis?
  private var narrowed: [UInt8]
  private var resized: [UInt8]
  private var sums: [Int32]

  init(width: Int, height: Int, newWidth: Int, newHeight: Int) {
    self.width = width
    self.height = height
    self.newWidth = newWidth
    self.newHeight = newHeight
    columns = width == newWidth ? nil : Axis(size: width, newSize: newWidth)
    rows = height == newHeight ? nil : Axis(size: height, newSize: newHeight)
    narrowed = [UInt8](repeating: 0, count: columns == nil ? 0 : 3 * newWidth * height)
    resized = [UInt8](repeating: 0, count: rows == nil ? 0 : 3 * newWidth * newHeight)
    sums = [Int32](repeating: 0, count: 3 * newWidth)
  }

  /// Gives `use` the resized picture: RGB, `newHeight x newWidth x 3` bytes.
  func apply<Result>(_ rgb: [UInt8], _ use: (UnsafeBufferPointer<UInt8>) throws -> Result) rethrows -> Result {
    if let columns {
      rgb.withUnsafeBufferPointer { source in
        narrowed.withUnsafeMutableBufferPointer { alongRows(source, columns, into: $0) }
      }
    }
    guard let rows else {
      return try (columns == nil ? rgb : narrowed).withUnsafeBufferPointer(use)
    }
    (columns == nil ? rgb : narrowed).withUnsafeBufferPointer { source in
      resized.withUnsafeMutableBufferPointer { target in
        sums.withUnsafeMutableBufferPointer { alongColumns(source, rows, sums: $0, into: target) }
      }
    }
    return try resized.withUnsafeBufferPointer(use)
  }

  private func alongRows(
    _ source: UnsafeBufferPointer<UInt8>, _ axis: Axis, into target: UnsafeMutableBufferPointer<UInt8>
  ) {
    let half: Int32 = 1 << (Self.fractionBits - 1)
    axis.weights.withUnsafeBufferPointer { weights in
      var at = 0
      for y in 0..<height {
        let row = 3 * width * y
        for x in 0..<newWidth {
          var (red, green, blue) = (half, half, half)
          var from = row + 3 * axis.first[x]
          for k in axis.begin[x]..<axis.begin[x + 1] {
            let weight = weights[k]
            red &+= Int32(source[from]) &* weight
            green &+= Int32(source[from + 1]) &* weight
            blue &+= Int32(source[from + 2]) &* weight
            from += 3
          }
          target[at] = Self.clipped(red)
          target[at + 1] = Self.clipped(green)
          target[at + 2] = Self.clipped(blue)
          at += 3
        }
      }
    }
  }

  private func alongColumns(
    _ source: UnsafeBufferPointer<UInt8>, _ axis: Axis, sums: UnsafeMutableBufferPointer<Int32>,
    into target: UnsafeMutableBufferPointer<UInt8>
  ) {
    let stride = 3 * newWidth
    for y in 0..<newHeight {
      sums.update(repeating: 1 << (Self.fractionBits - 1))
      var from = stride * axis.first[y]
      for k in axis.begin[y]..<axis.begin[y + 1] {
        let weight = axis.weights[k]
        for x in 0..<stride {
          sums[x] &+= Int32(source[from + x]) &* weight
        }
        from += stride
      }
      for x in 0..<stride {
        target[stride * y + x] = Self.clipped(sums[x])
      }
    }
  }

  private static func clipped(_ sum: Int32) -> UInt8 {
    UInt8(truncatingIfNeeded: max(0, min(255, sum >> fractionBits)))
  }

  /// Which samples each new sample mixes: from `first[i]` on, with `weights[begin[i]..<begin[i + 1]]`.
  private struct Axis {
    var first: [Int] = []
    var begin: [Int] = [0]
    var weights: [Int32] = []

    init(size: Int, newSize: Int) {
      let scale = Double(size) / Double(newSize)
      let reach = max(scale, 1)
      for i in 0..<newSize {
        let centre = (Double(i) + 0.5) * scale
        let start = max(0, Int(centre - reach + 0.5))
        let end = min(size, Int(centre + reach + 0.5))
        let shares = (start..<end).map { Self.triangle($0, centre: centre, reach: reach) }
        let total = shares.reduce(0, +)
        first.append(start)
        weights += shares.map { Int32($0 / total * Double(1 << fractionBits) + 0.5) }
        begin.append(weights.count)
      }
    }

    private static func triangle(_ sample: Int, centre: Double, reach: Double) -> Double {
      max(0, 1 - abs((Double(sample) - centre + 0.5) * (1 / reach)))
    }
  }
}
