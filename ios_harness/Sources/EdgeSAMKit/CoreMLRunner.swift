#if canImport(CoreML)
  import CoreML
  import Foundation

  /// Runs `.mlpackage` models by Core ML, on the memory of the session's tensors: nothing is copied where Core ML takes
  /// them as they are, and the decoder reads the embedding where the encoder wrote it.
  public final class CoreMLRunner: GraphRunner {
    /// Which parts of the device may run the models.
    public let computeUnits: ComputeUnits
    /// The compiled encoder and decoder; empty unless they are loaded.
    public private(set) var compiled: [URL] = []
    /// Outputs of the last frames that Core ML did not write where it was told to, and that were copied, by name.
    public private(set) var copied: Set<String> = []

    private var encoder: MLModel?
    private var decoder: MLModel?
    private var encoding: CoreMLCall?
    private var decoding: CoreMLCall?
    private var memory = CoreMLMemory()

    /// A runner that has loaded nothing yet.
    public init(computeUnits: ComputeUnits = .all) {
      self.computeUnits = computeUnits
    }

    /// What Core ML is told, for loading a model or its plan.
    public var configuration: MLModelConfiguration {
      let configuration = MLModelConfiguration()
      switch computeUnits {
      case .all: configuration.computeUnits = .all
      case .cpuAndNeuralEngine: configuration.computeUnits = .cpuAndNeuralEngine
      case .cpuAndGPU: configuration.computeUnits = .cpuAndGPU
      case .cpuOnly: configuration.computeUnits = .cpuOnly
      }
      return configuration
    }

    /// Compiles both models unless `cache` has them, and loads them.
    ///
    /// - Throws: ``SegmentationError/loadFailed(_:)``.
    public func open(encoder: URL, decoder: URL, model: ModelDescription, cache: URL) throws {
      close()
      do {
        let kept = ["encoder", "decoder"].map { cache.appendingPathComponent("\($0).mlmodelc") }
        self.encoder = try load(encoder, kept: kept[0])
        self.decoder = try load(decoder, kept: kept[1])
        compiled = kept
      } catch {
        close()
        throw SegmentationError.loadFailed(error.localizedDescription)
      }
    }

    private func load(_ package: URL, kept: URL) throws -> MLModel {
      if FileManager.default.fileExists(atPath: kept.path) {
        if let model = try? MLModel(contentsOf: kept, configuration: configuration) { return model }
        // Written by another version of the system, or cut short.
        try FileManager.default.removeItem(at: kept)
      }
      let compiled = try MLModel.compileModel(at: package)
      do {
        // In one step: what has the name is whole.
        try FileManager.default.moveItem(at: compiled, to: kept)
      } catch {
        // Another session may have compiled the same model meanwhile, which takes seconds.
        try? FileManager.default.removeItem(at: compiled)
        guard FileManager.default.fileExists(atPath: kept.path) else { throw error }
      }
      return try MLModel(contentsOf: kept, configuration: configuration)
    }

    /// Runs the encoder.
    ///
    /// - Throws: ``SegmentationError/runFailed(_:)``.
    public func encode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
      try run(encoder, &encoding, inputs, outputs)
    }

    /// Runs the decoder.
    ///
    /// - Throws: ``SegmentationError/runFailed(_:)``.
    public func decode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
      try run(decoder, &decoding, inputs, outputs)
    }

    private func run(_ model: MLModel?, _ call: inout CoreMLCall?, _ inputs: [Tensor], _ outputs: [Tensor]) throws {
      guard let model else { throw SegmentationError.runFailed("the model is not loaded") }
      do {
        try autoreleasepool {
          let ready = try call.flatMap { $0.fits(inputs, outputs) ? $0 : nil } ?? CoreMLCall(inputs, outputs, &memory)
          call = ready
          copied.formUnion(try ready.run(model))
        }
      } catch let error as SegmentationError {
        throw error
      } catch {
        throw SegmentationError.runFailed(error.localizedDescription)
      }
    }

    /// Nil: Core ML does not tell a caller what it used. The harness asks its compute plan.
    public var applied: String? { nil }

    /// Nil: Core ML does not tell.
    public var threads: Int? { nil }

    /// Which outputs had to be copied, or nil.
    public var note: String? {
      copied.isEmpty ? nil : "Core ML's own memory, copied: \(copied.sorted().joined(separator: ", "))"
    }

    /// Lets go of both models and of all memory.
    public func close() {
      encoder = nil
      decoder = nil
      encoding = nil
      decoding = nil
      memory = CoreMLMemory()
      compiled = []
      copied = []
    }
  }
#endif
