/// The fields of one JSON object, each fetched by kind and range; a fault names the field.
///
/// Unknown fields pass.
struct Fields {
  let values: JSONObject
  private let place: String

  /// - Parameters:
  ///   - values: the object.
  ///   - place: how faults name it, such as `job.frame`.
  init(_ values: JSONObject, _ place: String) {
    self.values = values
    self.place = place
  }

  /// Whether a field is there and not null.
  func has(_ name: String) -> Bool {
    (values[name] ?? .null) != .null
  }

  func text(_ name: String) throws -> String {
    guard let text = values[name]?.text else {
      throw wrong(name, "text")
    }
    return text
  }

  func optionalText(_ name: String) throws -> String? {
    has(name) ? try text(name) : nil
  }

  /// A text of which `isRight` says that it is one of `wanted`.
  func text(_ name: String, _ wanted: String, where isRight: (String) -> Bool) throws -> String {
    let text = try text(name)
    guard isRight(text) else {
      throw wrong(name, wanted)
    }
    return text
  }

  func job(_ name: String = "job") throws -> String {
    try text(name, "an id of a-z 0-9 -, 64 at most", where: Names.isJob)
  }

  func sha256(_ name: String) throws -> String {
    try text(name, "64 hexadecimal digits", where: Names.isSHA256)
  }

  /// A path within the harness's folder.
  ///
  /// - Throws: `Fault` `bad-path` where it is not well-formed.
  func path(_ name: String, where isRight: (String) -> Bool = Names.isPath) throws -> String {
    let path = try text(name)
    guard isRight(path) else {
      throw Fault("bad-path", "\(place).\(name): no path where files of the harness belong, of plain names")
    }
    return path
  }

  func whole(_ name: String, _ range: ClosedRange<Int>) throws -> Int {
    guard let whole = values[name]?.whole, range.contains(whole) else {
      throw wrong(name, "a whole number from \(range.lowerBound) to \(range.upperBound)")
    }
    return whole
  }

  /// A number of bytes, at least 0.
  ///
  /// - Throws: `Fault` `too-large` beyond `most`.
  func bytes(_ name: String, most: Int) throws -> Int {
    let bytes = try whole(name, 0...Int.max)
    guard bytes <= most else {
      throw Fault("too-large", "\(place).\(name): \(bytes) bytes; the limit is \(most)")
    }
    return bytes
  }

  func number(_ name: String, _ range: ClosedRange<Double>) throws -> Double {
    try number(values[name], name, range)
  }

  func flag(_ name: String) throws -> Bool {
    guard let flag = values[name]?.bool else {
      throw wrong(name, "true or false")
    }
    return flag
  }

  func object(_ name: String) throws -> Fields {
    try inner(values[name], name)
  }

  func objects(_ name: String, _ count: ClosedRange<Int>) throws -> [Fields] {
    try list(name, count).enumerated().map { index, element in try inner(element, "\(name).\(index)") }
  }

  func numbers(_ name: String, _ count: ClosedRange<Int>, _ range: ClosedRange<Double>) throws -> [Double] {
    try list(name, count).enumerated().map { index, element in try number(element, "\(name).\(index)", range) }
  }

  func wholes(_ name: String, _ count: ClosedRange<Int>, _ range: ClosedRange<Int>) throws -> [Int] {
    try list(name, count).map { element in
      guard let whole = element.whole, range.contains(whole) else {
        throw wrong(name, "whole numbers from \(range.lowerBound) to \(range.upperBound)")
      }
      return whole
    }
  }

  /// Pairs such as points.
  func pairs(_ name: String, _ count: ClosedRange<Int>, _ range: ClosedRange<Double>) throws -> [(Double, Double)] {
    try list(name, count).map { element in
      guard let pair = element.list, pair.count == 2 else {
        throw wrong(name, "a list of pairs")
      }
      return (try number(pair[0], name, range), try number(pair[1], name, range))
    }
  }

  func wrong(_ name: String, _ wanted: String) -> Fault {
    Fault("bad-line", "\(place).\(name): \(wanted) was to come")
  }

  private func inner(_ value: JSON?, _ name: String) throws -> Fields {
    guard let object = value?.object else {
      throw wrong(name, "an object")
    }
    return Fields(object, "\(place).\(name)")
  }

  private func list(_ name: String, _ count: ClosedRange<Int>) throws -> [JSON] {
    guard let list = values[name]?.list, count.contains(list.count) else {
      throw wrong(name, "a list of \(count.lowerBound) to \(count.upperBound)")
    }
    return list
  }

  private func number(_ value: JSON?, _ name: String, _ range: ClosedRange<Double>) throws -> Double {
    guard let number = value?.number, range.contains(number) else {
      throw wrong(name, "a number from \(range.lowerBound) to \(range.upperBound)")
    }
    return number
  }
}
