#if canImport(CoreML)
  import CoreML
  import Foundation

  /// Which device runs how much of a model, as Core ML plans it: an estimate, and no measurement.
  struct Placement {
    enum Device: String, CaseIterable {
      case neuralEngine = "neural engine"
      case gpu = "GPU"
      case cpu = "CPU"
    }

    /// Every operation that is to run somewhere, in the order of the program; cost is a share, 0 to 1.
    private(set) var operations: [(name: String, device: Device, cost: Double?)] = []

    /// Every device that is to run something.
    var devices: Set<Device> { Set(operations.map(\.device)) }

    /// One line, such as `neural engine 97 % of the cost (210 of 214 operations)`.
    var text: String {
      let total = operations.reduce(0) { $0 + ($1.cost ?? 0) }
      return Device.allCases.compactMap { device in
        let mine = operations.filter { $0.device == device }
        guard !mine.isEmpty else { return nil }
        let percent = total > 0 ? Int((100 * mine.reduce(0) { $0 + ($1.cost ?? 0) } / total).rounded()) : 0
        return "\(device.rawValue) \(percent) % of the cost (\(mine.count) of \(operations.count) operations)"
      }.joined(separator: ", ")
    }

    /// Waits for the plan of a compiled model.
    ///
    /// - Returns: nil where the system does not tell: before iOS 17.4, or for what is no program.
    static func read(_ compiled: URL, _ configuration: MLModelConfiguration) -> Placement? {
      guard #available(iOS 17.4, macOS 14.4, *) else { return nil }
      let answer = Answer()
      let question = Question(compiled: compiled, configuration: configuration)
      // A job has a thread of its own, which may wait.
      let done = DispatchSemaphore(value: 0)
      Task.detached {
        answer.placement = await question.ask()
        done.signal()
      }
      done.wait()
      return answer.placement
    }

    private final class Answer: @unchecked Sendable {
      var placement: Placement?
    }

    private struct Question: @unchecked Sendable {
      let compiled: URL
      let configuration: MLModelConfiguration

      @available(iOS 17.4, macOS 14.4, *)
      func ask() async -> Placement? {
        guard let plan = try? await MLComputePlan.load(contentsOf: compiled, configuration: configuration),
          case .program(let program) = plan.modelStructure, let main = program.functions["main"]
        else { return nil }
        var placement = Placement()
        for operation in main.block.operations {
          guard let usage = plan.deviceUsage(for: operation) else { continue }  // constants run nowhere
          let device: Device
          switch usage.preferred {
          case .neuralEngine: device = .neuralEngine
          case .gpu: device = .gpu
          case .cpu: device = .cpu
          @unknown default: continue
          }
          placement.operations.append((operation.operatorName, device, plan.estimatedCost(of: operation)?.weight))
        }
        return placement.operations.isEmpty ? nil : placement
      }
    }
  }
#endif
