import Foundation

/// A folder that `edgesam-mobile build` made, or a part of it: `manifest.json` and the model files that it names.
public struct ModelPackage: Sendable {
  /// An encoder and a decoder in one format and precision.
  public struct Artifact: Sendable, Equatable {
    /// What the manifest calls it, such as `coreml-fp16`.
    public let id: String
    /// Its file format, such as `coreml`.
    public let format: String
    /// Where the encoder lies.
    public let encoder: URL
    /// Where the decoder lies.
    public let decoder: URL
    /// SHA-256 of both, as the manifest has them: what is kept of a model is kept under these.
    public let key: String
    /// How it is called.
    public let model: ModelDescription
    /// The oldest system that runs it, such as `iOS 16`; nil where the manifest does not say.
    public let minimumOS: String?

    /// Whether this device's system is new enough for it.
    public var runsHere: Bool { runs(onIOS: Self.iOS) }

    /// - Parameter version: nil for a system that has no version of iOS, which is asked nothing.
    func runs(onIOS version: Int?) -> Bool {
      let words = (minimumOS ?? "").split(separator: " ")
      guard let version, words.count == 2, words[0] == "iOS", let least = Int(words[1].prefix { $0 != "." }) else {
        return true
      }
      return version >= least
    }

    /// The version of iOS that has this system's Core ML: macOS 14 came with iOS 17, and from 26 on both count alike.
    private static var iOS: Int? {
      let version = ProcessInfo.processInfo.operatingSystemVersion.majorVersion
      #if os(iOS)
        return version
      #elseif os(macOS)
        return version < 26 ? version + 3 : version
      #else
        return nil
      #endif
    }
  }

  private static let schema = "edgesam.manifest/1"
  private static let mostBytes = 4 << 20

  /// The folder.
  public let folder: URL
  /// What is in it, in the manifest's order.
  public let artifacts: [Artifact]

  /// Reads a package's manifest. Model files are looked at when they are loaded, and their hashes never: an app's
  /// resources are signed.
  ///
  /// - Throws: ``SegmentationError/invalidPackage(_:)``.
  public init(folder: URL) throws {
    let file = folder.appendingPathComponent("manifest.json")
    let data: Data
    do {
      data = try Data(contentsOf: file)
    } catch {
      throw SegmentationError.invalidPackage("no manifest.json in \(folder.lastPathComponent)")
    }
    guard data.count <= Self.mostBytes else {
      throw SegmentationError.invalidPackage("manifest.json is implausibly large")
    }
    do {
      let version = try JSONDecoder().decode(Version.self, from: data).schema
      guard version == Self.schema else {
        throw SegmentationError.invalidPackage("manifest.json is of version \(version), not \(Self.schema)")
      }
      let manifest = try JSONDecoder().decode(Manifest.self, from: data)
      artifacts = manifest.artifacts.map { $0.artifact(in: folder, of: manifest) }
    } catch let error as DecodingError {
      throw SegmentationError.invalidPackage("manifest.json is damaged: \(error.place)")
    }
    self.folder = folder
  }

  /// An artefact of a format.
  ///
  /// - Parameters:
  ///   - id: the one of that id; nil for the first that this device's system runs.
  ///   - format: what the runtime loads.
  /// - Throws: ``SegmentationError/invalidPackage(_:)`` where there is none, ``SegmentationError/unavailable(_:)`` where
  ///   it needs a newer system.
  public func artifact(_ id: String? = nil, format: String = "coreml") throws -> Artifact {
    try artifact(id, format: format, where: \.runsHere)
  }

  func artifact(_ id: String?, format: String, where runs: (Artifact) -> Bool) throws -> Artifact {
    let fitting = artifacts.filter { $0.format == format }
    let chosen = fitting.filter { id == nil || $0.id == id }
    guard let first = chosen.first else {
      let list = fitting.map(\.id).joined(separator: ", ")
      throw SegmentationError.invalidPackage(
        "the package has no \(id ?? "artefact") of format \(format), but \(list.isEmpty ? "none" : list)")
    }
    guard let found = chosen.first(where: runs) else {
      throw SegmentationError.unavailable("\(first.id) needs \(first.minimumOS ?? "a newer system")")
    }
    return found
  }
}

private struct Version: Decodable {
  let schema: String
}

private struct Manifest: Decodable {
  struct File: Decodable {
    let path: String
    let sha256: String

    init(from decoder: Decoder) throws {
      let fields = try decoder.container(keyedBy: CodingKeys.self)
      path = try fields.decode(String.self, forKey: .path)
      sha256 = try fields.decode(String.self, forKey: .sha256)
      // A package may come from somebody else: no path leads out of it, and a hash names a folder.
      let parts = path.split(separator: "/", omittingEmptySubsequences: false)
      guard !path.isEmpty, parts.allSatisfy({ !["", ".", ".."].contains($0) && !$0.contains("\\") }) else {
        throw DecodingError.dataCorruptedError(forKey: .path, in: fields, debugDescription: "")
      }
      guard sha256.utf8.count == 64, sha256.utf8.allSatisfy({ "0123456789abcdef".utf8.contains($0) }) else {
        throw DecodingError.dataCorruptedError(forKey: .sha256, in: fields, debugDescription: "")
      }
    }

    enum CodingKeys: String, CodingKey {
      case path, sha256
    }
  }

  struct Graph: Decodable {
    let file: File
    let inputs: [TensorSpec]
    let outputs: [TensorSpec]
  }

  struct Entry: Decodable {
    let id: String
    let format: String
    let encoder: Graph
    let decoder: Graph
    let minimumOS: String?

    enum CodingKeys: String, CodingKey {
      case id, format, encoder, decoder
      case minimumOS = "minimum_os"
    }

    func artifact(in folder: URL, of manifest: Manifest) -> ModelPackage.Artifact {
      ModelPackage.Artifact(
        id: id, format: format, encoder: folder.appendingPathComponent(encoder.file.path),
        decoder: folder.appendingPathComponent(decoder.file.path),
        key: "\(encoder.file.sha256)-\(decoder.file.sha256)",
        model: ModelDescription(
          encoder: .init(inputs: encoder.inputs, outputs: encoder.outputs),
          decoder: .init(inputs: decoder.inputs, outputs: decoder.outputs), picture: manifest.picture,
          prompt: manifest.prompt, mask: manifest.mask),
        minimumOS: minimumOS)
    }
  }

  let picture: ModelDescription.PictureRule
  let prompt: ModelDescription.PromptRule
  let mask: ModelDescription.MaskRule
  let artifacts: [Entry]
}

extension DecodingError {
  /// Which field is wrong.
  fileprivate var place: String {
    let path: [CodingKey]
    switch self {
    case .keyNotFound(let key, let context): path = context.codingPath + [key]
    case .typeMismatch(_, let context), .valueNotFound(_, let context), .dataCorrupted(let context):
      path = context.codingPath
    @unknown default: path = []
    }
    let names = path.map { $0.intValue.map(String.init) ?? $0.stringValue }
    return names.isEmpty ? "no JSON object" : names.joined(separator: ".")
  }
}
