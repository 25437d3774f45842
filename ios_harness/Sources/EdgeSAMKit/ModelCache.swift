import Foundation

/// Where compiled models are kept: one folder for each pair of an encoder's and a decoder's SHA-256, so that a model is
/// compiled once, and a new version of it anew.
public struct ModelCache: Sendable {
  /// Everything lies in here.
  public let folder: URL

  /// A cache in a folder, which is made when it is first needed.
  public init(folder: URL) {
    self.folder = folder
  }

  /// The app's own cache. The system may empty it when storage is short; models are then compiled again.
  ///
  /// - Throws: ``SegmentationError/storage(_:)`` where the app has none.
  public static func standard() throws -> ModelCache {
    let caches = try Self.stored {
      try FileManager.default.url(for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
    }
    return ModelCache(folder: caches.appendingPathComponent("EdgeSAMKit", isDirectory: true))
  }

  /// The folder of one artefact; made if it is not there.
  ///
  /// - Throws: ``SegmentationError/storage(_:)`` where it cannot be made.
  public func folder(for artifact: ModelPackage.Artifact) throws -> URL {
    let place = folder.appendingPathComponent(artifact.key, isDirectory: true)
    try Self.stored { try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true) }
    return place
  }

  /// Removes what is kept of all other artefacts, such as those of an app's last version.
  ///
  /// - Throws: ``SegmentationError/storage(_:)`` where something cannot be removed.
  public func prune(keeping artifacts: [ModelPackage.Artifact]) throws {
    guard FileManager.default.fileExists(atPath: folder.path) else { return }
    let kept = Set(artifacts.map(\.key))
    try Self.stored {
      for entry in try FileManager.default.contentsOfDirectory(atPath: folder.path) where !kept.contains(entry) {
        try FileManager.default.removeItem(at: folder.appendingPathComponent(entry))
      }
    }
  }

  private static func stored<Result>(_ work: () throws -> Result) throws -> Result {
    do {
      return try work()
    } catch {
      throw SegmentationError.storage("what is kept of models: \(error.localizedDescription)")
    }
  }
}
