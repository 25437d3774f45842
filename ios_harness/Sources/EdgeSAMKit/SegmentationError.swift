import Foundation

/// Why there is no mask: one line of what is wrong, and one of what to do.
public enum SegmentationError: Error, Equatable, Sendable {
  /// A package's manifest or files are missing or damaged.
  case invalidPackage(String)
  /// The tensors of a model do not fit each other, or its description.
  case invalidModel(String)
  /// The runtime does not load a model; in the runtime's own words.
  case loadFailed(String)
  /// The runtime does not run a model; in the runtime's own words.
  case runFailed(String)
  /// A prompt outside the picture, with too many points, or with none.
  case invalidPrompt(String)
  /// A picture that cannot be read.
  case invalidPicture(String)
  /// A picture or a model beyond the limits.
  case tooLarge(String)
  /// A prompt came before a picture was set.
  case noImage
  /// The device has no such runtime or compute unit, or its system is too old.
  case unavailable(String)
  /// A compiled model cannot be kept; in the system's own words.
  case storage(String)

  /// What is wrong, in one line.
  public var message: String {
    switch self {
    case .invalidPackage(let text), .invalidModel(let text), .loadFailed(let text), .runFailed(let text),
      .invalidPrompt(let text), .invalidPicture(let text), .tooLarge(let text), .unavailable(let text),
      .storage(let text):
      return Self.oneLine(text)
    case .noImage: return "no picture is set"
    }
  }

  /// What to do, in one line.
  public var hint: String {
    switch self {
    case .invalidPackage, .invalidModel: return "build the package again with `edgesam-mobile build`"
    case .loadFailed: return "try other compute units, or build the package again"
    case .runFailed: return "try other compute units"
    case .invalidPrompt: return "give points and a box in pixels of the picture, a box at most once"
    case .invalidPicture: return "give an RGB picture with a width and a height"
    case .tooLarge: return "make it smaller first"
    case .noImage: return "call setImage first"
    case .unavailable: return "choose what the device has, or update its system"
    case .storage: return "free storage on the device"
    }
  }

  private static func oneLine(_ text: String) -> String {
    text.split(whereSeparator: \.isNewline).joined(separator: " ")
  }
}

extension SegmentationError: LocalizedError {
  /// What is wrong, in one line.
  public var errorDescription: String? { message }

  /// What to do, in one line.
  public var recoverySuggestion: String? { hint }
}
