import EdgeSAMKit
import Foundation
import HarnessCore

/// ONNX Runtime on this machine's processor, for artefacts of the format `onnx`.
public struct OnnxRuntimes: Runtimes {
  /// ONNX Runtime alone.
  public let all: [RuntimeInfo]
  private let library: OnnxLibrary

  /// Loads ONNX Runtime.
  ///
  /// - Parameter library: path of its shared library, such as `capi/libonnxruntime.so.1.32.0` in its Python package.
  /// - Throws: ``SegmentationError/unavailable(_:)`` where that is none, or too old.
  public init(library path: String) throws {
    library = try OnnxLibrary(path: path)
    all = [RuntimeInfo(name: "ONNX Runtime", version: library.version, formats: ["onnx"], delegates: ["cpu"])]
  }

  /// A runner for graphs that are not loaded yet.
  ///
  /// - Throws: ``Fault`` with `no-runtime` or `no-delegate`.
  public func runner(format: String, runtime: String?, delegate: String?, threads: Int?) throws -> GraphRunner {
    _ = try RuntimeInfo.choose(from: all, format: format, runtime: runtime, delegate: delegate)
    return OnnxRunner(library: library, threads: threads)
  }
}

/// Encoder and decoder in ONNX Runtime.
final class OnnxRunner: GraphRunner {
  /// As it was asked for; what the runtime chooses by itself it does not tell.
  let threads: Int?
  /// Only the processor was ever offered to the runtime.
  let applied: String? = "cpu"
  let note: String? = "the file was read before load-cold: the check comes first"
  private let library: OnnxLibrary
  private var encoder: OnnxGraph?
  private var decoder: OnnxGraph?

  init(library: OnnxLibrary, threads: Int?) {
    self.library = library
    self.threads = threads
  }

  func open(encoder: URL, decoder: URL, model: ModelDescription, cache: URL) throws {
    self.encoder = try OnnxGraph(encoder, threads: threads, library: library)
    self.decoder = try OnnxGraph(decoder, threads: threads, library: library)
  }

  func encode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
    try run(encoder, inputs, outputs)
  }

  func decode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
    try run(decoder, inputs, outputs)
  }

  func close() {
    encoder = nil
    decoder = nil
  }

  private func run(_ graph: OnnxGraph?, _ inputs: [Tensor], _ outputs: [Tensor]) throws {
    guard let graph else { throw SegmentationError.runFailed("the graph is not loaded") }
    try graph.run(inputs, outputs)
  }
}
