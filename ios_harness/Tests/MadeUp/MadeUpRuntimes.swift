import EdgeSAMKit
import Foundation
import HarnessCore

/// No runtime: its masks are the same for every picture and prompt, and its faults are made to order.
///
/// For tests of all that is round a runtime.
public final class MadeUpRuntimes: Runtimes, @unchecked Sendable {
  /// The only format that it "loads".
  public static let format = "made-up"

  /// Logits of the four masks; the best one is `best`. Set before a job is started, as all below.
  public var logits: [Float] = [-1, -1, 1, -1]
  /// Which mask is the best one.
  public var best = 2
  /// The step that fails: `load`, `encode`, `decode` or `fault`.
  public var failsIn = ""
  /// Whether a load leaves something in the cache.
  public var keepsOnDisk = false
  /// Seconds that an encoder takes.
  public var pace = 0.0
  /// How often it was opened, and what the decoder was given last; for reading after a job.
  public internal(set) var opened = 0
  public internal(set) var labels: [Float] = []

  public init() {}

  public var all: [RuntimeInfo] {
    [RuntimeInfo(name: MadeUpRuntimes.format, version: "0", formats: [MadeUpRuntimes.format], delegates: ["cpu"])]
  }

  public func runner(format: String, runtime: String?, delegate: String?, threads: Int?) throws -> GraphRunner {
    _ = try RuntimeInfo.choose(from: all, format: format, runtime: runtime, delegate: delegate)
    return MadeUpRunner(self, threads: threads)
  }
}

/// A fault that no runtime has words for.
struct OutOfOrder: Error {}

final class MadeUpRunner: GraphRunner {
  private let made: MadeUpRuntimes
  let threads: Int?
  let applied: String? = "cpu"
  let note: String? = "made up: nothing was computed"
  let placement = [PlacedOperation(graph: "decoder", operation: "guess", device: "cpu", cost: 1)]

  init(_ made: MadeUpRuntimes, threads: Int?) {
    self.made = made
    self.threads = threads
  }

  func open(encoder: URL, decoder: URL, model: ModelDescription, cache: URL) throws {
    if made.failsIn == "load" {
      throw SegmentationError.loadFailed("made\nto order")
    }
    made.opened += 1
    if made.keepsOnDisk {
      try Data().write(to: cache.appendingPathComponent("kept"))
    }
  }

  func encode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
    if made.failsIn == "encode" {
      throw SegmentationError.runFailed("made\nto order")
    }
    if made.pace > 0 {
      Thread.sleep(forTimeInterval: made.pace)
    }
  }

  func decode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
    if made.failsIn == "decode" {
      throw SegmentationError.runFailed("made\nto order")
    }
    if made.failsIn == "fault" {
      throw OutOfOrder()
    }
    made.labels = (0..<inputs[2].spec.elements).map { inputs[2][$0] }
    let plane = outputs[1].spec.elements
    let masks = outputs[0].data.bindMemory(to: Float.self)
    for index in masks.indices {
      masks[index] = made.logits[index / plane]
    }
    outputs[1].data.bindMemory(to: Float.self).update(repeating: made.logits[made.best])
  }

  func close() {}
}
