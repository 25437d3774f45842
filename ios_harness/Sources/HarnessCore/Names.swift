/// The protocol's patterns.
///
/// They are held against bytes: to Swift's texts, characters are equal that bytes are not.
enum Names {
  private static let longestPath = 200

  /// Whether a text is a job's id: 1 to 64 of `a-z 0-9 -`.
  static func isJob(_ text: String) -> Bool {
    (1...64).contains(text.utf8.count) && text.utf8.allSatisfy { isLower($0) || isDigit($0) || $0 == dash }
  }

  /// Whether a text is a word: of `a-z 0-9 -`, 40 at most, beginning with a letter.
  static func isWord(_ text: String) -> Bool {
    guard let first = text.utf8.first, isLower(first) else {
      return false
    }
    return text.utf8.count <= 40 && isJob(text)
  }

  /// Whether a text is a SHA-256 in lower-case hexadecimal digits.
  static func isSHA256(_ text: String) -> Bool {
    text.utf8.count == 64
      && text.utf8.allSatisfy { isDigit($0) || (UInt8(ascii: "a")...UInt8(ascii: "f")).contains($0) }
  }

  /// Whether a text is a relative path of plain names: neither `..` nor a leading `/`, nothing hidden.
  static func isPath(_ text: String) -> Bool {
    text.utf8.count <= longestPath
      && text.utf8.split(separator: slash, omittingEmptySubsequences: false).allSatisfy(isPart)
  }

  /// Whether a text is a path where `put` may write: below `models/SHA256/` or `inputs/SHA256/`, nothing on its way.
  static func isStored(_ text: String) -> Bool {
    let parts = text.split(separator: "/", omittingEmptySubsequences: false).map(String.init)
    return isPath(text) && parts.count > 2 && ["models", "inputs"].contains(parts[0]) && isSHA256(parts[1])
      && !parts.contains { $0.hasSuffix(".part") }
  }

  private static let dash = UInt8(ascii: "-")
  private static let slash = UInt8(ascii: "/")

  private static func isPart(_ part: Substring.UTF8View) -> Bool {
    guard let first = part.first, isLetter(first) || isDigit(first) || first == UInt8(ascii: "_") else {
      return false
    }
    return part.allSatisfy { isLetter($0) || isDigit($0) || "._+-".utf8.contains($0) }
  }

  private static func isLower(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "a")...UInt8(ascii: "z")).contains(byte)
  }

  private static func isLetter(_ byte: UInt8) -> Bool {
    isLower(byte | 0x20) && byte < 0x80
  }

  private static func isDigit(_ byte: UInt8) -> Bool {
    (UInt8(ascii: "0")...UInt8(ascii: "9")).contains(byte)
  }
}
