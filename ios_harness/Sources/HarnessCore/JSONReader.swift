import Foundation

/// Reads one line of JSON.
///
/// Depth and length are limited, since the line comes from somebody else.
struct JSONReader {
  private static let deepest = 64

  private let bytes: [UInt8]
  private var at = 0
  private var depth = 0

  /// The object on a line, with or without its newline.
  ///
  /// - Throws: `Fault` `too-large` beyond 1 MiB, `bad-line` for all else that is no object.
  static func object(_ line: [UInt8]) throws -> JSONObject {
    guard line.count <= JSON.longestLine else {
      throw Fault("too-large", "a line of \(line.count) bytes; the limit is 1 MiB")
    }
    var text = String(decoding: line, as: UTF8.self)
    // What is no UTF-8 was repaired on the way, and so differs.
    guard text.withUTF8({ $0.count == line.count && $0.elementsEqual(line) }) else {
      throw Fault("bad-line", "not UTF-8")
    }
    var reader = JSONReader(bytes: line)
    let value = try reader.value()
    reader.space()
    guard reader.at == line.count else {
      throw reader.bad("something after the end")
    }
    guard case .object(let object) = value else {
      throw Fault("bad-line", "no JSON object")
    }
    return object
  }

  private init(bytes: [UInt8]) {
    self.bytes = bytes
  }

  private mutating func value() throws -> JSON {
    space()
    guard at < bytes.count else {
      throw bad("the line ends early")
    }
    switch bytes[at] {
    case UInt8(ascii: "{"): return .object(try members())
    case UInt8(ascii: "["): return .list(try elements())
    case UInt8(ascii: "\""): return .text(try string())
    case UInt8(ascii: "t"): return try word("true", .bool(true))
    case UInt8(ascii: "f"): return try word("false", .bool(false))
    case UInt8(ascii: "n"): return try word("null", .null)
    default: return try number()
    }
  }

  private mutating func members() throws -> JSONObject {
    var members = JSONObject()
    try enter()
    if !took("}") {
      repeat {
        space()
        guard at < bytes.count, bytes[at] == UInt8(ascii: "\"") else {
          throw bad("a name was to come")
        }
        let name = try string()
        try expect(":")
        members[name] = try value()
      } while took(",")
      try expect("}")
    }
    depth -= 1
    return members
  }

  private mutating func elements() throws -> [JSON] {
    var elements: [JSON] = []
    try enter()
    if !took("]") {
      repeat {
        elements.append(try value())
      } while took(",")
      try expect("]")
    }
    depth -= 1
    return elements
  }

  private mutating func enter() throws {
    at += 1
    depth += 1
    guard depth <= JSONReader.deepest else {
      throw bad("nested more than \(JSONReader.deepest) deep")
    }
  }

  private mutating func word(_ word: String, _ value: JSON) throws -> JSON {
    guard bytes[at...].starts(with: word.utf8) else {
      throw bad("no value")
    }
    at += word.utf8.count
    return value
  }

  private mutating func number() throws -> JSON {
    let begin = at
    if bytes[at] == UInt8(ascii: "-") {
      at += 1
    }
    let first = at
    try digits()
    guard bytes[first] != UInt8(ascii: "0") || at - first == 1 else {
      throw bad("a number begins with 0")
    }
    var isWhole = true
    if at < bytes.count, bytes[at] == UInt8(ascii: ".") {
      at += 1
      try digits()
      isWhole = false
    }
    if at < bytes.count, bytes[at] | 0x20 == UInt8(ascii: "e") {
      at += 1
      if at < bytes.count, bytes[at] == UInt8(ascii: "+") || bytes[at] == UInt8(ascii: "-") {
        at += 1
      }
      try digits()
      isWhole = false
    }
    let text = String(decoding: bytes[begin..<at], as: UTF8.self)
    // Beyond 64 bits it is no whole number to any field.
    if isWhole, let whole = Int(text) {
      return .whole(whole)
    }
    guard let value = Double(text), value.isFinite else {
      throw bad("a number is not finite")
    }
    return .number(value)
  }

  private mutating func digits() throws {
    let begin = at
    while at < bytes.count, bytes[at] >= UInt8(ascii: "0"), bytes[at] <= UInt8(ascii: "9") {
      at += 1
    }
    guard at > begin else {
      throw bad("no value")
    }
  }

  private mutating func string() throws -> String {
    at += 1
    var units: [UInt16]?
    let begin = at
    while at < bytes.count {
      let byte = bytes[at]
      if byte == UInt8(ascii: "\"") {
        defer { at += 1 }
        return try units.map(whole) ?? String(decoding: bytes[begin..<at], as: UTF8.self)
      }
      guard byte >= 0x20 else {
        throw bad("a control character in a text")
      }
      if byte == UInt8(ascii: "\\") {
        // Halves of characters can only be put together once all are there.
        if units == nil {
          units = Array(String(decoding: bytes[begin..<at], as: UTF8.self).utf16)
        }
        units?.append(try escaped())
      } else if units != nil {
        let piece = at
        at =
          bytes[at...].firstIndex { $0 < 0x20 || $0 == UInt8(ascii: "\"") || $0 == UInt8(ascii: "\\") } ?? bytes.count
        units?.append(contentsOf: String(decoding: bytes[piece..<at], as: UTF8.self).utf16)
      } else {
        at += 1
      }
    }
    throw bad("a text without end")
  }

  private mutating func escaped() throws -> UInt16 {
    let escapes = Array("\"\\/bfnrt".utf8)
    let meanings: [UInt16] = [0x22, 0x5c, 0x2f, 8, 12, 10, 13, 9]
    guard at + 1 < bytes.count else {
      throw bad("an unknown escape")
    }
    let byte = bytes[at + 1]
    at += 2
    if let place = escapes.firstIndex(of: byte) {
      return meanings[place]
    }
    guard byte == UInt8(ascii: "u"), at + 4 <= bytes.count else {
      throw bad("an unknown escape")
    }
    let digits = bytes[at..<at + 4]
    // `UInt16` would take a sign as well.
    guard digits.allSatisfy({ Character(UnicodeScalar($0)).isHexDigit }),
      let unit = UInt16(String(decoding: digits, as: UTF8.self), radix: 16)
    else {
      throw bad("an unknown escape")
    }
    at += 4
    return unit
  }

  private func whole(_ units: [UInt16]) throws -> String {
    let text = String(decoding: units, as: UTF16.self)
    guard text.utf16.elementsEqual(units) else {
      throw bad("half a character")
    }
    return text
  }

  private mutating func took(_ wanted: Unicode.Scalar) -> Bool {
    space()
    guard at < bytes.count, bytes[at] == UInt8(ascii: wanted) else {
      return false
    }
    at += 1
    return true
  }

  private mutating func expect(_ wanted: Unicode.Scalar) throws {
    guard took(wanted) else {
      throw bad("'\(wanted)' was to come")
    }
  }

  private mutating func space() {
    while at < bytes.count {
      switch bytes[at] {
      case 0x20, 0x09, 0x0d, 0x0a: at += 1
      default: return
      }
    }
  }

  private func bad(_ what: String) -> Fault {
    Fault("bad-line", "no JSON: \(what) at byte \(at)")
  }
}
