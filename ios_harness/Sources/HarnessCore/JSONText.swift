/// Writes JSON in ASCII, so that no log or code page on the way can change it.
enum JSONText {
  /// An object as one line, without a newline. What is not finite becomes null.
  static func of(_ object: JSONObject) -> String {
    var text = ""
    append(.object(object), to: &text)
    return text
  }

  private static func append(_ value: JSON, to text: inout String) {
    switch value {
    case .null:
      text += "null"
    case .bool(let flag):
      text += flag ? "true" : "false"
    case .whole(let whole):
      text += String(whole)
    case .number(let number):
      text += number.isFinite ? number.description : "null"
    case .text(let string):
      quote(string, to: &text)
    case .list(let elements):
      text += "["
      for (index, element) in elements.enumerated() {
        text += index == 0 ? "" : ","
        append(element, to: &text)
      }
      text += "]"
    case .object(let object):
      text += "{"
      for (index, name) in object.names.enumerated() {
        text += index == 0 ? "" : ","
        quote(name, to: &text)
        text += ":"
        append(object[name] ?? .null, to: &text)
      }
      text += "}"
    }
  }

  private static func quote(_ string: String, to text: inout String) {
    text += "\""
    for unit in string.utf16 {
      switch unit {
      case 0x22, 0x5c:
        text += "\\" + String(UnicodeScalar(UInt8(unit)))
      case 0x20...0x7e:
        text.unicodeScalars.append(UnicodeScalar(UInt8(unit)))
      default:
        let digits = String(unit, radix: 16)
        text += "\\u" + String(repeating: "0", count: 4 - digits.count) + digits
      }
    }
    text += "\""
  }
}
