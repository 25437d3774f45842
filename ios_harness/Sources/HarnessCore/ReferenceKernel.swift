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
      left.withUnsafeBufferPointer { left in
        right.withUnsafeBufferPointer { right in
          product.withUnsafeMutableBufferPointer { product in
            ReferenceKernel.multiply(left, right, product)
            for value in product {
              sum += Double(abs(value))
            }
          }
        }
      }
    }
    return sum
  }

  private static func multiply(
    _ left: UnsafeBufferPointer<Float>, _ right: UnsafeBufferPointer<Float>,
    _ product: UnsafeMutableBufferPointer<Float>
  ) {
    product.update(repeating: 0)
    for i in 0..<side {
      for k in 0..<side {
        let factor = left[i * side + k]
        for j in 0..<side {
          product[i * side + j] += factor * right[k * side + j]
        }
      }
    }
  }
}
