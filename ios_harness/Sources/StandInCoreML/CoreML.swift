// A STAND-IN, and nothing of Apple's: the few declarations of Core ML that this project uses, written after the pages
// that each of them names, so that their users can be compiled and tested on Linux. It proves our code against our
// reading of the documentation, not against the system. What a model "computes" here is set by a test: `StandIn`.

import Foundation

/// What a test decides; no part of Core ML.
public enum StandIn {
  /// What predictions give, by the name in the compiled model's file.
  nonisolated(unsafe) public static var predict:
    (String, any MLFeatureProvider, MLPredictionOptions) throws -> any MLFeatureProvider = { name, _, _ in
      throw StandInError(text: "\(name) computes nothing")
    }
  /// The operations of each model, by that name.
  nonisolated(unsafe) public static var operations: [String: [StandInOperation]] = [:]
  /// What happens while a model is compiled.
  nonisolated(unsafe) public static var meanwhile: () throws -> Void = {}
  /// How often a model was compiled.
  nonisolated(unsafe) public static var compilations = 0
  /// The compute units of the models that were loaded, in order.
  nonisolated(unsafe) public static var loaded: [MLComputeUnits] = []
}

/// An operation of a stand-in plan.
public struct StandInOperation {
  let name: String
  let preferred: MLComputeDevice?
  let weight: Double

  /// An operation that would run on `preferred` (nil: the plan does not tell), with that share of the cost.
  public init(name: String = "ios16.add", preferred: MLComputeDevice?, weight: Double) {
    self.name = name
    self.preferred = preferred
    self.weight = weight
  }
}

struct StandInError: LocalizedError {
  let text: String
  var errorDescription: String? { text }
}

/// https://developer.apple.com/documentation/objectivec/autoreleasepool(invoking:)
public func autoreleasepool<Result>(invoking body: () throws -> Result) rethrows -> Result {
  try body()
}

/// https://developer.apple.com/documentation/coreml/mlcomputeunits
public enum MLComputeUnits: Int {
  case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

/// https://developer.apple.com/documentation/coreml/mlmodelconfiguration
open class MLModelConfiguration {
  public var computeUnits = MLComputeUnits.all
  public init() {}
}

/// https://developer.apple.com/documentation/coreml/mlpredictionoptions
open class MLPredictionOptions {
  /// https://developer.apple.com/documentation/coreml/mlpredictionoptions/outputbackings
  public var outputBackings: [String: Any] = [:]
  public init() {}
}

/// https://developer.apple.com/documentation/coreml/mlfeatureprovider
public protocol MLFeatureProvider {
  var featureNames: Set<String> { get }
  func featureValue(for featureName: String) -> MLFeatureValue?
}

/// https://developer.apple.com/documentation/coreml/mldictionaryfeatureprovider
open class MLDictionaryFeatureProvider: MLFeatureProvider {
  private let values: [String: MLFeatureValue]
  public var featureNames: Set<String> { Set(values.keys) }

  public init(dictionary: [String: Any]) throws {
    values = try dictionary.mapValues { value in
      guard let value = value as? MLFeatureValue else { throw StandInError(text: "no feature value") }
      return value
    }
  }

  public func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}

/// https://developer.apple.com/documentation/coreml/mlfeaturevalue
open class MLFeatureValue {
  public let multiArrayValue: MLMultiArray?
  public let imageBufferValue: CVPixelBuffer?

  public init(multiArray: MLMultiArray) {
    multiArrayValue = multiArray
    imageBufferValue = nil
  }

  public init(pixelBuffer: CVPixelBuffer) {
    multiArrayValue = nil
    imageBufferValue = pixelBuffer
  }
}

/// https://developer.apple.com/documentation/coreml/mlmultiarraydatatype
public enum MLMultiArrayDataType: Int {
  case float16, float32, int32

  var bytes: Int { self == .float16 ? 2 : 4 }
}

/// https://developer.apple.com/documentation/coreml/mlmultiarray
open class MLMultiArray {
  public let shape: [NSNumber]
  public let strides: [NSNumber]
  public let dataType: MLMultiArrayDataType
  private let memory: UnsafeMutableRawPointer

  /// https://developer.apple.com/documentation/coreml/mlmultiarray/init(datapointer:shape:datatype:strides:deallocator:)
  public init(
    dataPointer: UnsafeMutableRawPointer, shape: [NSNumber], dataType: MLMultiArrayDataType, strides: [NSNumber],
    deallocator: ((UnsafeMutableRawPointer) -> Void)? = nil
  ) throws {
    guard shape.count == strides.count else { throw StandInError(text: "as many strides as sides") }
    memory = dataPointer
    self.shape = shape
    self.strides = strides
    self.dataType = dataType
  }

  /// https://developer.apple.com/documentation/coreml/mlmultiarray/withunsafebytes(_:)
  public func withUnsafeBytes<Result>(_ body: (UnsafeRawBufferPointer) throws -> Result) rethrows -> Result {
    let last = zip(shape, strides).reduce(0) { $0 + ($1.0.intValue - 1) * $1.1.intValue }
    return try body(UnsafeRawBufferPointer(start: memory, count: (last + 1) * dataType.bytes))
  }
}

/// https://developer.apple.com/documentation/coreml/mlmodel
open class MLModel {
  private let name: String

  /// https://developer.apple.com/documentation/coreml/mlmodel/compilemodel(at:)-6442s
  public class func compileModel(at modelURL: URL) throws -> URL {
    let compiled = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).mlmodelc")
    let text = try String(contentsOf: modelURL, encoding: .utf8)
    if text == "damaged" { throw StandInError(text: "the model is damaged") }
    try text.write(to: compiled, atomically: true, encoding: .utf8)
    StandIn.compilations += 1
    try StandIn.meanwhile()
    return compiled
  }

  /// https://developer.apple.com/documentation/coreml/mlmodel/init(contentsof:configuration:)
  public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
    name = try String(contentsOf: url, encoding: .utf8)
    if name.isEmpty { throw StandInError(text: "nothing is compiled here") }
    StandIn.loaded.append(configuration.computeUnits)
  }

  /// https://developer.apple.com/documentation/coreml/mlmodel/prediction(from:options:)
  public func prediction(
    from input: any MLFeatureProvider, options: MLPredictionOptions
  ) throws -> any MLFeatureProvider {
    try StandIn.predict(name, input, options)
  }
}
