import Foundation

/// A JSON value.
///
/// Whole numbers are told from others, and `true` from 1, which Foundation's reader does not.
public enum JSON: Equatable, Sendable {
  case null
  case bool(Bool)
  case whole(Int)
  case number(Double)
  case text(String)
  case list([JSON])
  case object(JSONObject)

  /// The most bytes that a line may have, with its newline.
  public static let longestLine = 1 << 20

  /// The value as a whole number, or nil.
  public var whole: Int? {
    if case .whole(let value) = self { return value }
    return nil
  }

  /// The value as a number, whole or not, or nil.
  public var number: Double? {
    switch self {
    case .whole(let value): return Double(value)
    case .number(let value): return value
    default: return nil
    }
  }

  /// The value as a text, or nil.
  public var text: String? {
    if case .text(let value) = self { return value }
    return nil
  }

  /// The value as true or false, or nil.
  public var bool: Bool? {
    if case .bool(let value) = self { return value }
    return nil
  }

  /// The value as a list, or nil.
  public var list: [JSON]? {
    if case .list(let value) = self { return value }
    return nil
  }

  /// The value as an object, or nil.
  public var object: JSONObject? {
    if case .object(let value) = self { return value }
    return nil
  }
}

/// The members of a JSON object, in the order in which they came.
///
/// Of two with one name, the last counts.
public struct JSONObject: Equatable, Sendable {
  /// The names, in order.
  public private(set) var names: [String] = []
  private var values: [String: JSON] = [:]

  /// Creates an empty object.
  public init() {}

  /// A member's value, or nil where there is none; a member that is `null` is `.null`.
  public subscript(name: String) -> JSON? {
    get {
      values[name]
    }
    set {
      if values.updateValue(newValue ?? .null, forKey: name) == nil {
        names.append(name)
      }
    }
  }

  /// Takes over all members of another object, which go before those of the same name.
  ///
  /// - Parameter other: the other object.
  public mutating func merge(_ other: JSONObject) {
    for name in other.names {
      self[name] = other[name]
    }
  }

  /// Whether both have the same members, in whatever order.
  public static func == (left: JSONObject, right: JSONObject) -> Bool {
    left.values == right.values
  }
}

extension JSONObject: ExpressibleByDictionaryLiteral {
  /// Creates an object from its members.
  public init(dictionaryLiteral elements: (String, JSON)...) {
    for (name, value) in elements {
      self[name] = value
    }
  }
}

extension JSON: ExpressibleByStringLiteral, ExpressibleByIntegerLiteral, ExpressibleByBooleanLiteral,
  ExpressibleByFloatLiteral, ExpressibleByNilLiteral, ExpressibleByArrayLiteral, ExpressibleByDictionaryLiteral
{
  /// Creates a text.
  public init(stringLiteral value: String) { self = .text(value) }
  /// Creates a whole number.
  public init(integerLiteral value: Int) { self = .whole(value) }
  /// Creates a number.
  public init(floatLiteral value: Double) { self = .number(value) }
  /// Creates true or false.
  public init(booleanLiteral value: Bool) { self = .bool(value) }
  /// Creates null.
  public init(nilLiteral: ()) { self = .null }
  /// Creates a list.
  public init(arrayLiteral elements: JSON...) { self = .list(elements) }
  /// Creates an object.
  public init(dictionaryLiteral elements: (String, JSON)...) {
    var object = JSONObject()
    for (name, value) in elements {
      object[name] = value
    }
    self = .object(object)
  }

  /// A text, or null for nil.
  public init(_ text: String?) { self = text.map(JSON.text) ?? .null }
  /// A whole number, or null for nil.
  public init(_ whole: Int?) { self = whole.map(JSON.whole) ?? .null }
  /// A number, or null for nil.
  public init(_ number: Double?) { self = number.map(JSON.number) ?? .null }
  /// True or false, or null for nil.
  public init(_ flag: Bool?) { self = flag.map(JSON.bool) ?? .null }
}
