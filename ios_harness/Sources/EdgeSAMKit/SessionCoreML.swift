#if canImport(CoreML)
  import Foundation

  extension SegmentationSession {
    /// Loads a package's Core ML model. The first time on a device it is compiled, which takes seconds.
    ///
    /// - Parameters:
    ///   - package: the folder with `manifest.json`, such as a resource of the app.
    ///   - artifact: an id of the manifest; nil for the first of Core ML that this device's system runs.
    ///   - computeUnits: which parts of the device may run it.
    ///   - cache: where the compiled model is kept; nil for the app's own cache.
    /// - Throws: ``SegmentationError``.
    public init(
      package: URL, artifact: String? = nil, computeUnits: ComputeUnits = .all, cache: ModelCache? = nil
    ) async throws {
      let found = try ModelPackage(folder: package).artifact(artifact)
      try await self.init(
        model: found.model, encoder: found.encoder, decoder: found.decoder,
        cache: (cache ?? .standard()).folder(for: found), runner: { CoreMLRunner(computeUnits: computeUnits) })
    }
  }
#endif
