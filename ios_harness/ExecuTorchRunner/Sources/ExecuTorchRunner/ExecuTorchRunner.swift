import EdgeSAMKit
import ExecuTorch
import Foundation

/// ExecuTorch's own Swift API, which its authors call experimental. Inputs are read where they lie; outputs are copied.
final class ExecuTorchRunner: GraphRunner {
  private var encoder: Module?
  private var decoder: Module?

  func open(encoder: URL, decoder: URL, model: ModelDescription, cache: URL) throws {
    self.encoder = try Self.load(encoder)
    self.decoder = try Self.load(decoder)
  }

  private static func load(_ file: URL) throws -> Module {
    let module = Module(filePath: file.path)
    do {
      try module.load("forward")
    } catch {
      throw SegmentationError.loadFailed("\(file.lastPathComponent): \(error.localizedDescription)")
    }
    return module
  }

  func encode(_ inputs: [EdgeSAMKit.Tensor], _ outputs: [EdgeSAMKit.Tensor]) throws {
    try Self.run(encoder, inputs, outputs)
  }

  func decode(_ inputs: [EdgeSAMKit.Tensor], _ outputs: [EdgeSAMKit.Tensor]) throws {
    try Self.run(decoder, inputs, outputs)
  }

  private static func run(
    _ module: Module?, _ inputs: [EdgeSAMKit.Tensor], _ outputs: [EdgeSAMKit.Tensor]
  ) throws {
    guard let module else { throw SegmentationError.runFailed("the program is not loaded") }
    do {
      let answers = try module.forward(try inputs.map(wrapped))
      guard answers.count == outputs.count else {
        throw SegmentationError.runFailed("\(answers.count) outputs instead of \(outputs.count)")
      }
      for (answer, output) in zip(answers, outputs) {
        guard let found: ExecuTorch.Tensor<Float> = answer.tensor(), found.count == output.spec.elements,
          output.spec.dtype == .float32
        else { throw SegmentationError.runFailed("\(output.spec.name) is not what its description says") }
        found.withUnsafeBytes { output.data.copyMemory(from: UnsafeRawBufferPointer($0)) }
      }
    } catch let error as SegmentationError {
      throw error
    } catch {
      throw SegmentationError.runFailed(error.localizedDescription)
    }
  }

  /// The tensor's own memory, without a copy.
  private static func wrapped(_ tensor: EdgeSAMKit.Tensor) throws -> ValueConvertible {
    guard let address = tensor.data.baseAddress else {
      throw SegmentationError.runFailed("\(tensor.spec.name) is empty")
    }
    switch tensor.spec.dtype {
    case .float32: return ExecuTorch.Tensor<Float>(bytesNoCopy: address, shape: tensor.spec.shape)
    case .uint8: return ExecuTorch.Tensor<UInt8>(bytesNoCopy: address, shape: tensor.spec.shape)
    case .float16, .image:
      throw SegmentationError.runFailed("\(tensor.spec.name) is of \(tensor.spec.dtype.rawValue)")
    }
  }

  /// Nil: ExecuTorch does not tell what ran.
  var applied: String? { nil }

  var threads: Int? { nil }

  var note: String? { nil }

  func close() {
    encoder = nil
    decoder = nil
  }
}
