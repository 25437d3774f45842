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

    /// Operations and share of the estimated cost, 0 to 1, by device.
    private var shares: [Device: (operations: Int, cost: Double)] = [:]

    /// Every device that is to run something.
    var devices: Set<Device> { Set(shares.keys) }

    /// One line, such as `neural engine 97 % of the cost (210 of 214 operations)`.
    var text: String {
      let total = shares.values.reduce(0) { $0 + $1.cost }
      let operations = shares.values.reduce(0) { $0 + $1.operations }
      return Device.allCases.compactMap { device in
        shares[device].map { share in
          let percent = total > 0 ? Int((100 * share.cost / total).rounded()) : 0
          return "\(device.rawValue) \(percent) % of the cost (\(share.operations) of \(operations) operations)"
        }
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
          let former = placement.shares[device] ?? (0, 0)
          let cost = plan.estimatedCost(of: operation)?.weight ?? 0
          placement.shares[device] = (former.operations + 1, former.cost + cost)
        }
        return placement.shares.isEmpty ? nil : placement
      }
    }
  }
#endif
