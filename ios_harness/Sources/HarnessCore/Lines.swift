/// Whole lines out of pieces, holding no more than one line and one piece.
struct Lines {
  private var rest: [UInt8] = []
  private var searched = 0

  /// Takes bytes as they come.
  mutating func feed(_ bytes: [UInt8]) {
    rest += bytes
  }

  /// The next line with its newline, or nil until more has come.
  ///
  /// - Throws: `Fault` `too-large`: a line is longer than 1 MiB.
  mutating func next() throws -> [UInt8]? {
    let newline = rest[searched...].firstIndex(of: UInt8(ascii: "\n"))
    searched = newline.map { $0 + 1 } ?? rest.count
    guard searched + (newline == nil ? 1 : 0) <= JSON.longestLine else {
      throw Fault("too-large", "a line is longer than \(JSON.longestLine) bytes")
    }
    guard newline != nil else {
      return nil
    }
    let line = Array(rest[..<searched])
    rest.removeFirst(searched)
    searched = 0
    return line
  }
}
