import Foundation

/// https://developer.apple.com/documentation/coreml/mlcomputedevice
public enum MLComputeDevice {
  case cpu(MLCPUComputeDevice)
  case gpu(MLGPUComputeDevice)
  case neuralEngine(MLNeuralEngineComputeDevice)
}

/// https://developer.apple.com/documentation/coreml/mlcpucomputedevice
open class MLCPUComputeDevice {
  public init() {}
}

/// https://developer.apple.com/documentation/coreml/mlgpucomputedevice
open class MLGPUComputeDevice {
  public init() {}
}

/// https://developer.apple.com/documentation/coreml/mlneuralenginecomputedevice
open class MLNeuralEngineComputeDevice {
  public init() {}
}

/// https://developer.apple.com/documentation/coreml/mlmodelstructure-swift.enum
public enum MLModelStructure {
  case neuralNetwork
  case program(Program)
  case pipeline
  case unsupported

  /// https://developer.apple.com/documentation/coreml/mlmodelstructure-swift.enum/program-swift.struct
  public struct Program {
    public let functions: [String: Function]

    public struct Function {
      public let block: Block
    }

    public struct Block {
      public let operations: [Operation]
    }

    public struct Operation {
      public let operatorName: String
      let index: Int
    }
  }
}

/// https://developer.apple.com/documentation/coreml/mlcomputeplan-1w21n
public struct MLComputePlan {
  private let operations: [StandInOperation]

  /// https://developer.apple.com/documentation/coreml/mlcomputeplan-1w21n/load(contentsof:configuration:)
  public static func load(contentsOf url: URL, configuration: MLModelConfiguration) async throws -> MLComputePlan {
    let name = try String(contentsOf: url, encoding: .utf8)
    guard let operations = StandIn.operations[name] else { throw StandInError(text: "no plan") }
    return MLComputePlan(operations: operations)
  }

  /// https://developer.apple.com/documentation/coreml/mlcomputeplan-1w21n/modelstructure
  public var modelStructure: MLModelStructure {
    let block = MLModelStructure.Program.Block(
      operations: operations.enumerated().map { .init(operatorName: $1.name, index: $0) })
    return .program(.init(functions: ["main": .init(block: block)]))
  }

  /// https://developer.apple.com/documentation/coreml/mlcomputeplan-1w21n/deviceusage
  public struct DeviceUsage {
    public let supported: [MLComputeDevice]
    public let preferred: MLComputeDevice
  }

  /// https://developer.apple.com/documentation/coreml/mlcomputeplan-1w21n/cost
  public struct Cost {
    public let weight: Double
  }

  /// https://developer.apple.com/documentation/coreml/mlcomputeplan-1w21n/deviceusage(for:)
  public func deviceUsage(for operation: MLModelStructure.Program.Operation) -> DeviceUsage? {
    operations[operation.index].preferred.map { DeviceUsage(supported: [$0], preferred: $0) }
  }

  /// https://developer.apple.com/documentation/coreml/mlcomputeplan-1w21n/estimatedcost(of:)
  public func estimatedCost(of operation: MLModelStructure.Program.Operation) -> Cost? {
    Cost(weight: operations[operation.index].weight)
  }
}
