/// One input or output of a graph, as the manifest has it.
public struct TensorSpec: Codable, Equatable, Sendable {
  /// How numbers lie in memory.
  public enum DType: String, Codable, Sendable {
    /// Single precision.
    case float32
    /// Half precision.
    case float16
    /// Whole numbers from 0 to 255.
    case uint8
    /// A picture for Core ML: blue, green, red and alpha, one byte each, row by row, whatever the layout says.
    case image
  }

  /// The most that one tensor may take, in bytes.
  public static let mostBytes = 512 << 20

  /// What the graph calls it.
  public let name: String
  /// Sides, outermost first.
  public let shape: [Int]
  /// How its numbers lie in memory.
  public let dtype: DType
  /// What each axis is, such as `NCHW`.
  public let layout: String

  /// A spec whose shape is known to be good.
  ///
  /// - Precondition: `bytes(shape:dtype:)` is not nil for it.
  public init(name: String, shape: [Int], dtype: DType, layout: String) {
    precondition(Self.bytes(shape: shape, dtype: dtype) != nil, "the shape of \(name) is \(shape)")
    self.name = name
    self.shape = shape
    self.dtype = dtype
    self.layout = layout
  }

  /// Reads a spec of a manifest or a job.
  ///
  /// - Throws: `DecodingError` for a missing field, a side below 1, or a tensor that is too large.
  public init(from decoder: Decoder) throws {
    let fields = try decoder.container(keyedBy: CodingKeys.self)
    name = try fields.decode(String.self, forKey: .name)
    shape = try fields.decode([Int].self, forKey: .shape)
    dtype = try fields.decode(DType.self, forKey: .dtype)
    layout = try fields.decode(String.self, forKey: .layout)
    if Self.bytes(shape: shape, dtype: dtype) == nil {
      throw DecodingError.dataCorruptedError(
        forKey: .shape, in: fields, debugDescription: "the shape of \(name) is \(shape)")
    }
  }

  /// What a tensor takes in memory.
  ///
  /// - Returns: bytes, or nil where the shape is empty, has a side below 1, is no picture's where it must be, or takes
  ///   more than ``mostBytes``.
  public static func bytes(shape: [Int], dtype: DType) -> Int? {
    guard !shape.isEmpty, shape.allSatisfy({ $0 > 0 && $0 <= mostBytes }) else { return nil }
    var elements = 1
    for side in shape {
      elements *= side  // below 2^29 * 2^29
      if elements > mostBytes { return nil }
    }
    let bytes: Int
    switch dtype {
    case .float32: bytes = 4 * elements
    case .float16: bytes = 2 * elements
    case .uint8: bytes = elements
    case .image:
      if elements % 3 != 0 { return nil }
      bytes = elements / 3 * 4
    }
    return bytes <= mostBytes ? bytes : nil
  }

  /// How many numbers lie in memory: the product of the sides, but four for each pixel of an image.
  public var elements: Int {
    let product = shape.reduce(1, *)
    return dtype == .image ? product / 3 * 4 : product
  }

  /// What it takes in memory, in bytes.
  public var bytes: Int {
    switch dtype {
    case .float32: return 4 * elements
    case .float16: return 2 * elements
    case .uint8, .image: return elements
    }
  }
}
