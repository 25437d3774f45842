/// The same fixed arithmetic everywhere, to compare a device with itself on another day: 20 products of two matrices
/// of 128 x 128 small whole numbers in single precision, in loops over i, k, j.
///
/// All sums are whole and below 2^24, hence exact, so the checksum is the same on every processor.
final class ReferenceKernel {
  private static let side = 128
  private static let rounds = 20
  /// What `run` gives.
  static let checksum = 9_283_857.0

  private var left = [Float](repeating: 0, count: side * side)
  private var right = [Float](repeating: 0, count: side * side)
  private var product = [Float](repeating: 0, count: side * side)

  init() {
    for index in left.indices {
      left[index] = Float(index * 7 % 11 - 5)
      right[index] = Float(index * 5 % 13 - 6)
    }
  }

  /// Computes all products; gives the sum of absolute values over all of them.
  func run() -> Double {
    var sum = 0.0
    for round in 0..<ReferenceKernel.rounds {
      left[0] = Float(round % 3)
      ReferenceKernel.multiply(left, right, &product)
      for value in product {
        sum += Double(abs(value))
      }
    }
    return sum
  }

  /// By bare pointers and `while`: a debug build, as tests are, would take seconds for arrays and `for`.
  private static func multiply(
    _ left: UnsafePointer<Float>, _ right: UnsafePointer<Float>, _ product: UnsafeMutablePointer<Float>
  ) {
    product.update(repeating: 0, count: side * side)
    var i = 0
    while i < side * side {
      for k in 0..<side {
        let factor = left[i + k]
        var j = 0
        while j < side {
          product[i + j] += factor * right[k * side + j]
          j += 1
        }
      }
      i += side
    }
  }
}
