/// Enlarges mask logits, which cover the whole padded frame, to the picture: bilinearly to the frame, cut to the resized
/// picture, bilinearly to the picture. All three are linear, so each new row mixes few rows of the logits.
final class Upscaling {
  private static let taps = 4

  private let geometry: Geometry
  private let low: Int
  private let rows: Axis
  private let columns: Axis
  private var mixed: [Float]

  /// - Parameters:
  ///   - low: side of the logits.
  ///   - size: side of the frame, at least `low`.
  init(geometry: Geometry, low: Int, size: Int) {
    self.geometry = geometry
    self.low = low
    rows = Axis(low: low, size: size, resized: geometry.resizedHeight, original: geometry.height)
    columns = Axis(low: low, size: size, resized: geometry.resizedWidth, original: geometry.width)
    // Taps beyond the last logit have no weight, and read zeros.
    mixed = [Float](repeating: 0, count: low + Self.taps)
  }

  /// The mask at the picture's size.
  ///
  /// - Parameter logits: `low x low`, row by row.
  func threshold(_ logits: [Float], at threshold: Float, into mask: inout Mask) {
    let stride = mask.stride
    logits.withUnsafeBufferPointer { logits in
      mixed.withUnsafeMutableBufferPointer { mixed in
        mask.bits.withUnsafeMutableBufferPointer { bits in
          for y in 0..<geometry.height {
            mix(logits, row: y, into: mixed)
            cut(mixed, at: threshold, into: UnsafeMutableBufferPointer(rebasing: bits[y * stride..<(y + 1) * stride]))
          }
        }
      }
    }
  }

  private func mix(_ logits: UnsafeBufferPointer<Float>, row: Int, into mixed: UnsafeMutableBufferPointer<Float>) {
    mixed.update(repeating: 0)
    for tap in 0..<Self.taps {
      let weight = rows.weights[Self.taps * row + tap]
      if weight != 0 {
        let from = low * (rows.first[row] + tap)
        for x in 0..<low {
          mixed[x] += weight * logits[from + x]
        }
      }
    }
  }

  private func cut(
    _ mixed: UnsafeMutableBufferPointer<Float>, at threshold: Float, into bits: UnsafeMutableBufferPointer<UInt8>
  ) {
    columns.first.withUnsafeBufferPointer { first in
      columns.weights.withUnsafeBufferPointer { weights in
        for byte in bits.indices {
          var packed: UInt8 = 0
          let begin = 8 * byte
          for x in begin..<min(begin + 8, geometry.width) {
            let from = first[x]
            let at = Self.taps * x
            // In this order, the fixtures' masks are the same to the pixel.
            let sum =
              weights[at] * mixed[from] + weights[at + 1] * mixed[from + 1] + weights[at + 2] * mixed[from + 2]
              + weights[at + 3] * mixed[from + 3]
            if sum > threshold {
              packed |= 0x80 >> UInt8(x - begin)
            }
          }
          bits[byte] = packed
        }
      }
    }
  }

  /// Weights of `taps` neighbouring logits for each pixel of one side of the picture.
  private struct Axis {
    var first: [Int] = []
    var weights: [Float] = []

    init(low: Int, size: Int, resized: Int, original: Int) {
      for i in 0..<original {
        let place = Self.place(i, source: resized, target: original)
        let frame = Int(place)
        let start = Int(Self.place(frame, source: low, target: size))
        var shares = [Double](repeating: 0, count: taps)
        let upper = place - Double(frame)
        for (at, share) in [(frame, 1 - upper), (min(frame + 1, resized - 1), upper)] {
          let logit = Self.place(at, source: low, target: size)
          let lower = Int(logit)
          shares[lower - start] += share * (1 - (logit - Double(lower)))
          shares[min(lower + 1, low - 1) - start] += share * (logit - Double(lower))
        }
        first.append(start)
        weights += shares.map { Float($0) }
      }
    }

    /// Where sample `i` of `target` lies among `source` samples; centres are half a step in.
    private static func place(_ i: Int, source: Int, target: Int) -> Double {
      let place = (Double(i) + 0.5) * (Double(source) / Double(target)) - 0.5
      return max(0, min(place, Double(source) - 1))
    }
  }
}
