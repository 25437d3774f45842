import COnnxRuntime
import EdgeSAMKit
import Foundation

/// One loaded graph.
final class OnnxGraph {
  private let library: OnnxLibrary
  private var session: OpaquePointer?
  private var inputs: TensorViews?
  private var outputs: TensorViews?

  /// Loads a graph.
  ///
  /// - Parameters:
  ///   - threads: within an operation; the runtime's own choice where `nil`.
  /// - Throws: ``SegmentationError/loadFailed(_:)``.
  init(_ file: URL, threads: Int?, library: OnnxLibrary) throws {
    self.library = library
    let api = library.api
    var options: OpaquePointer?
    try api.must(api.CreateSessionOptions(&options), SegmentationError.loadFailed)
    defer { api.ReleaseSessionOptions(options) }
    try api.must(api.SetIntraOpNumThreads(options, Int32(threads ?? 0)), SegmentationError.loadFailed)
    let errorsOnly = Int32(ORT_LOGGING_LEVEL_ERROR.rawValue)
    try api.must(api.SetSessionLogSeverityLevel(options, errorsOnly), SegmentationError.loadFailed)
    try api.must(api.CreateSession(library.environment, file.path, options, &session), SegmentationError.loadFailed)
  }

  deinit {
    library.api.ReleaseSession(session)
  }

  /// Runs the graph: it reads and writes the tensors' own memory.
  ///
  /// - Throws: ``SegmentationError/runFailed(_:)``.
  func run(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
    // Made at the first frame: the harness gives the same tensors to every one.
    let given = try TensorViews.of(inputs, kept: &self.inputs, library)
    let filled = try TensorViews.of(outputs, kept: &self.outputs, library)
    let api = library.api
    let status = api.Run(
      session, nil, given.names, given.values, given.values.count, filled.names, filled.values.count, &filled.values)
    try api.must(status, SegmentationError.runFailed)
  }
}

/// Tensors as the runtime sees them: names and shapes over their own memory, of which nothing is copied.
private final class TensorViews {
  let names: [UnsafePointer<CChar>?]
  var values: [OpaquePointer?] = []
  private let tensors: [Tensor]
  private let library: OnnxLibrary

  /// The views that are kept, made anew where they are of other tensors.
  static func of(_ tensors: [Tensor], kept: inout TensorViews?, _ library: OnnxLibrary) throws -> TensorViews {
    if let kept, kept.tensors.elementsEqual(tensors, by: ===) { return kept }
    let made = try TensorViews(tensors, library)
    kept = made
    return made
  }

  private init(_ tensors: [Tensor], _ library: OnnxLibrary) throws {
    self.tensors = tensors
    self.library = library
    names = tensors.map { UnsafePointer(strdup($0.spec.name)) }
    let api = library.api
    var memory: OpaquePointer?
    try api.must(api.CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &memory), SegmentationError.runFailed)
    defer { api.ReleaseMemoryInfo(memory) }
    for tensor in tensors {
      let shape = tensor.spec.shape.map(Int64.init)
      var value: OpaquePointer?
      let status = try api.CreateTensorWithDataAsOrtValue(
        memory, tensor.data.baseAddress, tensor.spec.bytes, shape, shape.count, tensor.spec.elementType(), &value)
      try api.must(status, SegmentationError.runFailed)
      values.append(value)
    }
  }

  deinit {
    values.forEach(library.api.ReleaseValue)
    names.forEach { free(UnsafeMutablePointer(mutating: $0)) }
  }
}

extension TensorSpec {
  fileprivate func elementType() throws -> ONNXTensorElementDataType {
    switch dtype {
    case .float32: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT
    case .float16: return ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT16
    case .uint8: return ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8
    case .image: throw SegmentationError.runFailed("\(name) is an image, which ONNX Runtime does not take")
    }
  }
}
