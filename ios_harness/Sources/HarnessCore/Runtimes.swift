import EdgeSAMKit

/// What `hello` says of one runtime.
public struct RuntimeInfo: Equatable, Sendable {
  /// What it is called, such as `Core ML`.
  public let name: String
  /// Its version.
  public let version: String
  /// The formats of artefacts that it loads.
  public let formats: [String]
  /// What can be asked for; the first is its own choice.
  public let delegates: [String]

  /// Creates the description of a runtime.
  public init(name: String, version: String, formats: [String], delegates: [String]) {
    self.name = name
    self.version = version
    self.formats = formats
    self.delegates = delegates
  }

  /// The first runtime of several that loads a format and has what is asked for.
  ///
  /// - Parameters:
  ///   - all: those to choose from.
  ///   - format: the artefact's format.
  ///   - runtime: a name, or nil for any.
  ///   - delegate: a delegate, or nil for the runtime's first.
  /// - Throws: `Fault` `no-runtime`, `no-delegate`.
  public static func choose(
    from all: [RuntimeInfo], format: String, runtime: String?, delegate: String?
  ) throws -> RuntimeInfo {
    guard let info = all.first(where: { $0.formats.contains(format) && [nil, $0.name].contains(runtime) }) else {
      throw Fault("no-runtime", "no \(runtime ?? "runtime") here executes \(format)")
    }
    if let delegate, !info.delegates.contains(delegate) {
      throw Fault("no-delegate", "\(info.name) has \(info.delegates.joined(separator: ", ")) here, not \(delegate)")
    }
    return info
  }

  var json: JSON {
    [
      "name": .text(name), "version": .text(version), "formats": .list(formats.map(JSON.text)),
      "delegates": .list(delegates.map(JSON.text)),
    ]
  }
}

/// The runtimes of a harness.
public protocol Runtimes: Sendable {
  /// All of them.
  var all: [RuntimeInfo] { get }

  /// A runner for a format, not yet opened. It is used by one thread.
  ///
  /// - Parameters:
  ///   - format: the artefact's format.
  ///   - runtime: a name of `all`, or nil for the format's own.
  ///   - delegate: nil for the runtime's first.
  ///   - threads: nil for the runtime's own choice.
  /// - Throws: `Fault` `no-runtime`, `no-delegate`.
  func runner(format: String, runtime: String?, delegate: String?, threads: Int?) throws -> GraphRunner
}
