#if canImport(CoreML)
  import CoreML
  import Foundation

  #if canImport(CoreVideo)
    import CoreVideo
  #endif

  /// Core ML's views of tensors, one for each: the embedding that a decoder gets is the object that the encoder filled.
  struct CoreMLMemory {
    private var values: [ObjectIdentifier: (tensor: Tensor, value: MLFeatureValue)] = [:]

    mutating func value(of tensor: Tensor) throws -> MLFeatureValue {
      if let found = values[ObjectIdentifier(tensor)] { return found.value }
      let value = try Self.view(of: tensor)
      values[ObjectIdentifier(tensor)] = (tensor, value)
      return value
    }

    private static func view(of tensor: Tensor) throws -> MLFeatureValue {
      guard let address = tensor.data.baseAddress else {
        throw SegmentationError.runFailed("\(tensor.spec.name) is empty")
      }
      switch tensor.spec.dtype {
      case .float32: return try array(address, tensor.spec, .float32)
      case .float16: return try array(address, tensor.spec, .float16)
      case .image: return try picture(address, tensor.spec)
      case .uint8: throw SegmentationError.runFailed("\(tensor.spec.name) is of uint8, which Core ML does not take")
      }
    }

    private static func array(
      _ address: UnsafeMutableRawPointer, _ spec: TensorSpec, _ type: MLMultiArrayDataType
    ) throws -> MLFeatureValue {
      var strides: [NSNumber] = []
      var step = 1
      for side in spec.shape.reversed() {
        strides.insert(NSNumber(value: step), at: 0)
        step *= side
      }
      let shape = spec.shape.map { NSNumber(value: $0) }
      return MLFeatureValue(
        multiArray: try MLMultiArray(dataPointer: address, shape: shape, dataType: type, strides: strides))
    }

    private static func picture(_ address: UnsafeMutableRawPointer, _ spec: TensorSpec) throws -> MLFeatureValue {
      let sides = spec.shape.filter { $0 != 1 && $0 != 3 }
      guard sides.count == 2 else {
        throw SegmentationError.runFailed("\(spec.name) of shape \(spec.shape) is no picture")
      }
      var made: CVPixelBuffer?
      let status = CVPixelBufferCreateWithBytes(
        nil, sides[1], sides[0], kCVPixelFormatType_32BGRA, address, 4 * sides[1], nil, nil, nil, &made)
      guard status == kCVReturnSuccess, let made else {
        throw SegmentationError.runFailed("no pixel buffer for \(spec.name): Core Video's status \(status)")
      }
      return MLFeatureValue(pixelBuffer: made)
    }
  }

  /// One graph's call, made once: what goes in, and where what comes out is to be written.
  final class CoreMLCall {
    private let inputs: [Tensor]
    private let outputs: [Tensor]
    private let features: MLDictionaryFeatureProvider
    private let options = MLPredictionOptions()
    private let backings: [MLMultiArray]

    init(_ inputs: [Tensor], _ outputs: [Tensor], _ memory: inout CoreMLMemory) throws {
      self.inputs = inputs
      self.outputs = outputs
      var values: [String: Any] = [:]
      for tensor in inputs {
        values[tensor.spec.name] = try memory.value(of: tensor)
      }
      features = try MLDictionaryFeatureProvider(dictionary: values)
      var backings: [MLMultiArray] = []
      for tensor in outputs {
        guard let backing = try memory.value(of: tensor).multiArrayValue else {
          throw SegmentationError.runFailed("\(tensor.spec.name) is an image, which no output may be")
        }
        backings.append(backing)
        options.outputBackings[tensor.spec.name] = backing
      }
      self.backings = backings
    }

    /// Whether it is a call with these very tensors.
    func fits(_ inputs: [Tensor], _ outputs: [Tensor]) -> Bool {
      self.inputs.elementsEqual(inputs, by: ===) && self.outputs.elementsEqual(outputs, by: ===)
    }

    /// - Returns: names of outputs that Core ML wrote elsewhere, and that were copied.
    func run(_ model: MLModel) throws -> [String] {
      let found = try model.prediction(from: features, options: options)
      var copied: [String] = []
      for (tensor, backing) in zip(outputs, backings) {
        guard let array = found.featureValue(for: tensor.spec.name)?.multiArrayValue else {
          throw SegmentationError.runFailed("the model gives no \(tensor.spec.name)")
        }
        if array !== backing {
          try Self.copy(array, like: backing, into: tensor)
          copied.append(tensor.spec.name)
        }
      }
      return copied
    }

    /// Copies row by row: Core ML's own memory may have gaps between rows.
    private static func copy(_ array: MLMultiArray, like backing: MLMultiArray, into tensor: Tensor) throws {
      guard array.dataType == backing.dataType, array.shape == backing.shape, let width = tensor.spec.shape.last,
        array.strides.last == 1
      else { throw SegmentationError.runFailed("\(tensor.spec.name) is not what its description says") }
      let bytes = tensor.spec.bytes / tensor.spec.elements
      let strides = array.strides.map(\.intValue)
      array.withUnsafeBytes { source in
        for row in 0..<tensor.spec.elements / width {
          var place = 0
          var rest = row
          for axis in tensor.spec.shape.indices.dropLast().reversed() {
            place += rest % tensor.spec.shape[axis] * strides[axis]
            rest /= tensor.spec.shape[axis]
          }
          let from = UnsafeRawBufferPointer(rebasing: source[place * bytes..<(place + width) * bytes])
          UnsafeMutableRawBufferPointer(rebasing: tensor.data[row * width * bytes..<(row + 1) * width * bytes])
            .copyMemory(from: from)
        }
      }
    }
  }
#endif
