import Foundation

/// An encoder and a decoder in a runtime. Opened once, used by one thread at a time, closed once.
public protocol GraphRunner: AnyObject {
  /// Loads both graphs.
  ///
  /// - Parameters:
  ///   - encoder: the file or folder of the encoder.
  ///   - decoder: that of the decoder.
  ///   - model: their inputs and outputs.
  ///   - cache: a folder where the runtime may keep what makes its next load faster.
  /// - Throws: ``SegmentationError/loadFailed(_:)`` in the runtime's own words.
  func open(encoder: URL, decoder: URL, model: ModelDescription, cache: URL) throws

  /// Runs the encoder: fills `outputs`. All tensors are in the order of the model, and the same ones at every call.
  ///
  /// - Throws: ``SegmentationError/runFailed(_:)`` in the runtime's own words.
  func encode(_ inputs: [Tensor], _ outputs: [Tensor]) throws

  /// Runs the decoder, as ``encode(_:_:)`` does the encoder. Its embedding is the very tensor that the encoder fills.
  ///
  /// - Throws: ``SegmentationError/runFailed(_:)`` in the runtime's own words.
  func decode(_ inputs: [Tensor], _ outputs: [Tensor]) throws

  /// The delegate or the compute units that really run the graphs; nil where the runtime does not tell.
  var applied: String? { get }

  /// Threads that it really uses; nil where the runtime does not tell.
  var threads: Int? { get }

  /// One line for people about how it runs, or nil.
  var note: String? { get }

  /// The processor that is to run each operation; empty where the runtime does not tell.
  var placement: [PlacedOperation] { get }

  /// Lets go of both graphs. A runner that is closed, or was never opened, may be closed.
  func close()
}

extension GraphRunner {
  /// Nothing is told.
  public var placement: [PlacedOperation] { [] }
}

/// An operation of a graph and the processor that is to run it: a runtime's plan, and no measurement.
public struct PlacedOperation: Equatable, Sendable {
  /// `encoder` or `decoder`.
  public let graph: String
  /// The operation's type, such as `ios16.conv`.
  public let operation: String
  /// The processor, such as `neural engine`.
  public let device: String
  /// Its share of the graph's estimated cost, 0 to 1; nil where it is not told.
  public let cost: Double?

  /// - Parameters:
  ///   - graph: `encoder` or `decoder`.
  ///   - operation: the operation's type.
  ///   - device: the processor.
  ///   - cost: its share of the graph's estimated cost, 0 to 1.
  public init(graph: String, operation: String, device: String, cost: Double?) {
    self.graph = graph
    self.operation = operation
    self.device = device
    self.cost = cost
  }
}
