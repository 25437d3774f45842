import EdgeSAMKit
import Foundation

/// What went wrong, as the protocol's event `error` says it.
public struct Fault: Error, Equatable, Sendable, CustomStringConvertible {
  private static let longest = 500

  /// One of the protocol's codes.
  public let code: String
  /// One line.
  public let message: String
  /// One line on what to do, or nil where only the code is known.
  public let hint: String?

  /// Creates a fault; control characters become spaces, so that message and hint are one line each.
  ///
  /// - Parameters:
  ///   - code: one of the protocol's codes, such as `load-failed`.
  ///   - message: what happened.
  ///   - hint: what to do about it.
  public init(_ code: String, _ message: String, hint: String? = nil) {
    self.code = code
    self.message = Fault.oneLine(message)
    self.hint = hint.map(Fault.oneLine)
  }

  /// Any error as a fault: a fault as it is, one of `EdgeSAMKit`'s with its code, all others as `internal`.
  init(_ error: Error) {
    switch error {
    case let fault as Fault:
      self = fault
    case let error as SegmentationError:
      self.init(Fault.code(of: error), error.message, hint: error.hint)
    default:
      self.init("internal", "\(error)")
    }
  }

  /// The code and the message.
  public var description: String {
    "\(code): \(message)"
  }

  private static func code(of error: SegmentationError) -> String {
    switch error {
    case .invalidPackage, .invalidModel, .invalidPrompt, .invalidPicture: return "bad-line"
    case .loadFailed: return "load-failed"
    case .runFailed: return "run-failed"
    case .tooLarge: return "too-large"
    case .unavailable: return "no-delegate"
    case .noImage, .storage: return "internal"
    }
  }

  private static func oneLine(_ text: String) -> String {
    let line = text.unicodeScalars.prefix(longest).map { scalar in
      scalar.properties.generalCategory == .control ? " " : Character(scalar)
    }
    return String(line).trimmingCharacters(in: .whitespaces)
  }
}

/// What the operating system says of the last call that failed, in `errno`.
struct SystemError: Error {
  let number: Int32

  init(_ number: Int32 = errno) {
    self.number = number
  }

  /// The system's words.
  var words: String {
    String(cString: strerror(number))
  }

  /// As a fault: `no-space` where the storage is full, `otherwise` for the rest.
  func fault(_ otherwise: String, _ what: String) -> Fault {
    if number == ENOSPC || number == EDQUOT {
      return Fault("no-space", "\(what): \(words)", hint: "free some storage on the device")
    }
    return Fault(otherwise, "\(what): \(words)")
  }
}
