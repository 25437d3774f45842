import Foundation

extension Picture {
  /// Reads a binary PPM (`P6`) of maximum 255.
  ///
  /// - Throws: ``SegmentationError/invalidPicture(_:)`` for another kind of file or one cut short,
  ///   ``SegmentationError/tooLarge(_:)``.
  package init(ppm: Data) throws {
    let file = try Netpbm(ppm, magic: "P6", maximum: 255)
    try self.init(width: file.width, height: file.height, rgb: [UInt8](file.pixels))
  }
}

extension Mask {
  /// Reads a binary PBM (`P4`), 1 = object.
  ///
  /// - Throws: as for a picture.
  package init(pbm: Data) throws {
    let file = try Netpbm(pbm, magic: "P4", maximum: nil)
    try self.init(width: file.width, height: file.height, packed: [UInt8](file.pixels))
  }

  /// The mask as a binary PBM, 1 = object.
  public var pbm: Data {
    Data("P4\n\(width) \(height)\n".utf8) + bits
  }
}

/// A binary Netpbm file, cut into its head and the bytes behind it.
private struct Netpbm {
  private static let blanks: Set<UInt8> = [9, 10, 11, 12, 13, 32]
  private static let longestWord = 20

  let width: Int
  let height: Int
  let pixels: Data

  init(_ data: Data, magic: String, maximum: Int?) throws {
    var rest = data
    guard Self.word(&rest) == magic else { throw SegmentationError.invalidPicture("no \(magic) file") }
    guard let width = Self.number(&rest), let height = Self.number(&rest) else {
      throw SegmentationError.invalidPicture("a \(magic) file without its size")
    }
    try Picture.check(width: width, height: height)
    if let maximum, Self.number(&rest) != maximum {
      throw SegmentationError.invalidPicture("a \(magic) file whose maximum is not \(maximum)")
    }
    self.width = width
    self.height = height
    pixels = rest.dropFirst()  // one blank ends the head
  }

  /// The next word, behind blanks and remarks.
  private static func word(_ rest: inout Data) -> String {
    while let first = rest.first, blanks.contains(first) || first == UInt8(ascii: "#") {
      if first == UInt8(ascii: "#") {
        rest = rest.drop { $0 != UInt8(ascii: "\n") }
      } else {
        rest = rest.dropFirst()
      }
    }
    let word = rest.prefix(longestWord).prefix { !blanks.contains($0) }
    rest = rest.dropFirst(word.count)
    return String(decoding: word, as: UTF8.self)
  }

  private static func number(_ rest: inout Data) -> Int? {
    let digits = word(&rest)
    return digits.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) } ? Int(digits) : nil
  }
}
