import EdgeSAMKit
import Foundation
import HarnessCore
import XCTest

@testable import HarnessCoreML

final class AppleProbeTests: XCTestCase {
  private let system = SystemProbe(name: "test", version: "1")

  func testAPhonesOwnKnowledgeIsAddedToTheSystems() {
    let probe = AppleProbe(system: system, id: "some-phone") { .init(level: 0.5, charging: true) }
    XCTAssertEqual(probe.device()["id"], "some-phone")
    XCTAssertEqual(probe.device()["cores"], system.device()["cores"])
    XCTAssertEqual(probe.state()["battery"], ["level": .number(0.5), "charging": true])
    XCTAssertEqual(probe.harness(), system.harness())
  }

  func testWhatAPhoneDoesNotTellIsNoGuess() {
    let probe = AppleProbe(system: system, id: nil) { nil }
    XCTAssertEqual(probe.device()["id"], JSON.null)
    XCTAssertNil(probe.state()["battery"])
  }
}

#if os(Linux) && canImport(CoreML)
  import CoreML

  /// Against the stand-in of Core ML: our code and our reading of its documentation, not the system.
  final class CoreMLRuntimesTests: XCTestCase {
    private var folder = URL(fileURLWithPath: "/")
    private let runtimes = CoreMLRuntimes()
    private let neural = MLComputeDevice.neuralEngine(.init())
    private let gpu = MLComputeDevice.gpu(.init())
    private let cpu = MLComputeDevice.cpu(.init())

    override func setUpWithError() throws {
      folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      for name in ["encoder", "decoder"] {
        try name.write(to: folder.appendingPathComponent(name), atomically: true, encoding: .utf8)
      }
      StandIn.operations = [:]
    }

    override func tearDownWithError() throws {
      try FileManager.default.removeItem(at: folder)
    }

    private func opened(_ delegate: String?) throws -> GraphRunner {
      let runner = try runtimes.runner(format: "coreml", runtime: nil, delegate: delegate, threads: nil)
      let spec = TensorSpec(name: "a", shape: [1], dtype: .float32, layout: "X")
      let graph = ModelDescription.Graph(inputs: [spec], outputs: [spec])
      let model = ModelDescription(
        encoder: graph, decoder: graph, picture: .init(size: 1, padRGB: [0, 0, 0]),
        prompt: .init(slots: 1, promptsPerCall: 1, maskInput: false),
        mask: .init(lowResolution: 1, threshold: 0, score: "iou", pointMasks: 3))
      try runner.open(
        encoder: folder.appendingPathComponent("encoder"), decoder: folder.appendingPathComponent("decoder"),
        model: model, cache: folder)
      return runner
    }

    func testComputeUnitsAreItsDelegates() throws {
      XCTAssertEqual(runtimes.all[0].delegates, ["all", "cpuAndNeuralEngine", "cpuAndGPU", "cpuOnly"])
      for (format, delegate, code) in [("onnx", "all", "no-runtime"), ("coreml", "xnnpack", "no-delegate")] {
        XCTAssertThrowsError(try runtimes.runner(format: format, runtime: nil, delegate: delegate, threads: nil)) {
          XCTAssertEqual(($0 as? Fault)?.code, code)
        }
      }
    }

    func testThePlanSaysWhereTheOperationsRun() throws {
      StandIn.operations["encoder"] = [
        .init(name: "ios16.conv", preferred: neural, weight: 0.75), .init(preferred: neural, weight: 0.2),
        .init(preferred: cpu, weight: 0.05),
        .init(preferred: nil, weight: 0),
      ]
      StandIn.operations["decoder"] = [.init(preferred: gpu, weight: 1)]
      let runner = try opened("all")
      XCTAssertEqual(runner.applied, "all")
      XCTAssertEqual(
        runner.note,
        "encoder: neural engine 95 % of the cost (2 of 3 operations), CPU 5 % of the cost (1 of 3 operations); "
          + "decoder: GPU 100 % of the cost (1 of 1 operations)")
      XCTAssertEqual(runner.placement.map(\.graph), ["encoder", "encoder", "encoder", "decoder"])
      XCTAssertEqual(
        runner.placement.first,
        PlacedOperation(graph: "encoder", operation: "ios16.conv", device: "neural engine", cost: 0.75))
      runner.close()
      XCTAssertNil(runner.note)
      XCTAssertEqual(runner.placement, [])
    }

    func testADeviceThatThePlanLeavesOutIsNotSaidToBeApplied() throws {
      StandIn.operations = [
        "encoder": [.init(preferred: cpu, weight: 1)], "decoder": [.init(preferred: cpu, weight: 1)],
      ]
      for delegate in ["all", "cpuAndNeuralEngine", "cpuAndGPU", "cpuOnly"] {
        XCTAssertEqual(try opened(delegate).applied, "cpuOnly")
      }
      StandIn.operations["decoder"] = [.init(preferred: gpu, weight: 1)]
      XCTAssertEqual(try opened("cpuAndGPU").applied, "cpuAndGPU")
      XCTAssertEqual(try opened("cpuAndNeuralEngine").applied, "cpuOnly")
    }

    func testWithoutAPlanNothingIsClaimed() throws {
      let runner = try opened(nil)
      XCTAssertNil(runner.applied)
      XCTAssertNil(runner.note)
    }
  }
#endif
