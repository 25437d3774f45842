/// A tensor's numbers, row by row, in the machine's byte order. Made once, filled many times.
///
/// It is used by one thread at a time, as its runner is.
public final class Tensor: @unchecked Sendable {
  // Pages of 16 KiB, as Apple's processors have them: memory that a GPU can use where it lies.
  private static let page = 16384

  /// What it is.
  public let spec: TensorSpec
  /// Its memory: page-aligned, `spec.bytes` long, valid as long as the tensor lives.
  public let data: UnsafeMutableRawBufferPointer
  private let memory: UnsafeMutableRawBufferPointer

  /// Allocates a tensor of zeros.
  public init(_ spec: TensorSpec) {
    self.spec = spec
    let whole = (spec.bytes + Self.page - 1) / Self.page * Self.page
    memory = UnsafeMutableRawBufferPointer.allocate(byteCount: whole, alignment: Self.page)
    memory.initializeMemory(as: UInt8.self, repeating: 0)
    data = UnsafeMutableRawBufferPointer(rebasing: memory[..<spec.bytes])
  }

  deinit {
    memory.deallocate()
  }

  /// The number at `index`, whatever the type.
  public subscript(index: Int) -> Float {
    switch spec.dtype {
    case .float32: return data.load(fromByteOffset: 4 * index, as: Float.self)
    case .float16: return Self.single(data.load(fromByteOffset: 2 * index, as: UInt16.self))
    case .uint8, .image: return Float(data[index])
    }
  }

  /// Copies the first numbers into `target`, all of them if it is as long as the tensor.
  package func read(into target: inout [Float]) {
    switch spec.dtype {
    case .float32:
      target.withUnsafeMutableBytes { $0.copyMemory(from: UnsafeRawBufferPointer(rebasing: data[..<$0.count])) }
    case .float16:
      let halves = data.bindMemory(to: UInt16.self)
      target.withUnsafeMutableBufferPointer { numbers in
        for index in 0..<numbers.count {
          numbers[index] = Self.single(halves[index])
        }
      }
    case .uint8, .image:
      for index in target.indices {
        target[index] = Float(data[index])
      }
    }
  }

  /// Half precision to single. `Float16` is not on every Mac.
  static func single(_ half: UInt16) -> Float {
    let bits = UInt32(half)
    let sign = (bits & 0x8000) << 16
    let rest = (bits & 0x7fff) << 13
    if bits & 0x7c00 == 0x7c00 {
      return Float(bitPattern: sign | 0x7f80_0000 | rest)
    }
    // The exponents' difference, by a product that is exact and right for subnormal numbers as well.
    let size = Float(bitPattern: rest) * 0x1p112
    return Float(bitPattern: sign | size.bitPattern)
  }
}

extension Array where Element == Tensor {
  /// The one called `name`.
  ///
  /// - Throws: ``SegmentationError/invalidModel(_:)`` without one.
  package func named(_ name: String) throws -> Tensor {
    guard let found = first(where: { $0.spec.name == name }) else {
      throw SegmentationError.invalidModel("the graph has no tensor \(name)")
    }
    return found
  }
}
