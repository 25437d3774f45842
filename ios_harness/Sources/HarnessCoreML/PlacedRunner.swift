#if canImport(CoreML)
  import EdgeSAMKit
  import Foundation

  /// ``CoreMLRunner``, and what Core ML's compute plan says of where its operations run. The plan is asked for once,
  /// when somebody wants to know: never within what is timed.
  final class PlacedRunner: GraphRunner {
    private let runner: CoreMLRunner
    private var placements: [Placement]?

    init(_ units: ComputeUnits) {
      runner = CoreMLRunner(computeUnits: units)
    }

    func open(encoder: URL, decoder: URL, model: ModelDescription, cache: URL) throws {
      placements = nil
      try runner.open(encoder: encoder, decoder: decoder, model: model, cache: cache)
    }

    func encode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
      try runner.encode(inputs, outputs)
    }

    func decode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
      try runner.decode(inputs, outputs)
    }

    /// The compute units asked for; fewer, where the plan leaves a whole device out.
    var applied: String? {
      let plan = plan()
      guard !plan.isEmpty else { return nil }
      let used = plan.reduce(into: Set<Placement.Device>()) { $0.formUnion($1.devices) }
      switch runner.computeUnits {
      case .all where used == [.cpu], .cpuAndGPU where !used.contains(.gpu),
        .cpuAndNeuralEngine where !used.contains(.neuralEngine):
        return ComputeUnits.cpuOnly.rawValue
      default:
        return runner.computeUnits.rawValue
      }
    }

    var threads: Int? { runner.threads }

    /// Shares of the cost by device, for each graph, and what had to be copied.
    var note: String? {
      let shares = zip(["encoder", "decoder"], plan()).map { "\($0): \($1.text)" }
      let parts = shares + [runner.note].compactMap { $0 }
      return parts.isEmpty ? nil : parts.joined(separator: "; ")
    }

    var placement: [PlacedOperation] {
      zip(["encoder", "decoder"], plan()).flatMap { graph, plan in
        plan.operations.map {
          PlacedOperation(graph: graph, operation: $0.name, device: $0.device.rawValue, cost: $0.cost)
        }
      }
    }

    func close() {
      placements = nil
      runner.close()
    }

    /// Of encoder and decoder; empty where Core ML does not tell.
    private func plan() -> [Placement] {
      if let placements { return placements }
      let found = runner.compiled.compactMap { Placement.read($0, runner.configuration) }
      let whole = found.count == 2 ? found : []
      placements = whole
      return whole
    }
  }
#endif
