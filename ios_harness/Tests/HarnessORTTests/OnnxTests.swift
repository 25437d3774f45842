import EdgeSAMKit
import Foundation
import HarnessCore
import XCTest

@testable import HarnessORT

/// Small graphs, made by `tests/ios/test_loopback.py`, in the real ONNX Runtime.
final class OnnxTests: XCTestCase {
  private var graphs = URL(fileURLWithPath: "")
  private var runtimes: OnnxRuntimes!

  override func setUpWithError() throws {
    let environment = ProcessInfo.processInfo.environment
    guard let library = environment["EDGESAM_ORT_LIBRARY"], let folder = environment["EDGESAM_ORT_GRAPHS"] else {
      throw XCTSkip("tests/ios/test_loopback.py sets EDGESAM_ORT_LIBRARY and EDGESAM_ORT_GRAPHS")
    }
    graphs = URL(fileURLWithPath: folder)
    runtimes = try OnnxRuntimes(library: library)
  }

  func testGraphsReadAndWriteTheTensorsOwnMemory() throws {
    let runner = try opened("double", "double", threads: 1)
    let (given, doubled) = (tensor("x", .float32), tensor("y", .float32))
    for first in [Float(1.5), -7] {
      given.data.storeBytes(of: first, as: Float.self)
      try runner.encode([given], [doubled])
      XCTAssertEqual((0..<3).map { doubled[$0] }, [2 * first, 0, 0])
    }
  }

  func testOtherTensorsAreSeenAsOthers() throws {
    let runner = try opened("double", "double", threads: nil)
    let given = tensor("x", .float32)
    given.data.storeBytes(of: 3, as: Float.self)
    let (one, other) = (tensor("y", .float32), tensor("y", .float32))
    try runner.decode([given], [one])
    try runner.decode([given], [other])
    XCTAssertEqual([one[0], other[0]], [6, 6])
  }

  func testBytesAndHalfPrecisionGoIn() throws {
    let runner = try opened("from_bytes", "from_halves", threads: 1)
    let (bytes, halves, out) = (tensor("x", .uint8), tensor("x", .float16), tensor("y", .float32))
    bytes.data.storeBytes(of: 200, as: UInt8.self)
    halves.data.storeBytes(of: 0x3e00, as: UInt16.self)  // 1.5
    try runner.encode([bytes], [out])
    XCTAssertEqual(out[0], 200)
    try runner.decode([halves], [out])
    XCTAssertEqual(out[0], 1.5)
  }

  func testWhatTheRuntimeSaysGoesOut() throws {
    let runner = try opened("double", "double", threads: 1)
    let wide = Tensor(TensorSpec(name: "x", shape: [1, 4], dtype: .float32, layout: "NC"))
    XCTAssertThrowsError(try runner.encode([wide], [tensor("y", .float32)])) { said($0, "Got: 4 Expected: 3") }
    XCTAssertThrowsError(try runner.encode([tensor("x", .float32)], [tensor("z", .float32)])) { said($0, "z") }
    let picture = Tensor(TensorSpec(name: "x", shape: [1, 3, 2, 2], dtype: .image, layout: "NCHW"))
    XCTAssertThrowsError(try runner.encode([picture], [tensor("y", .float32)])) { said($0, "is an image") }
    // And it can be used after that.
    try runner.encode([tensor("x", .float32)], [tensor("y", .float32)])
  }

  func testWhatIsNoGraphIsNotLoaded() throws {
    XCTAssertThrowsError(try opened("text", "double", threads: 1)) { error in
      guard case SegmentationError.loadFailed(let words) = error else { return XCTFail("\(error)") }
      XCTAssertTrue(words.contains("text.onnx"), words)
      XCTAssertFalse(words.contains("\n"))
    }
  }

  func testARunnerThatIsClosedOrWasNeverOpenedSaysSo() throws {
    let runner = try opened("double", "double", threads: 1)
    runner.close()
    runner.close()
    XCTAssertThrowsError(try runner.encode([], [])) { said($0, "not loaded") }
  }

  func testItTellsHowItRuns() throws {
    XCTAssertEqual(try opened("double", "double", threads: 2).threads, 2)
    XCTAssertNil(try opened("double", "double", threads: nil).threads)
    XCTAssertEqual(try opened("double", "double", threads: nil).applied, "cpu")
    XCTAssertEqual(runtimes.all.map(\.formats), [["onnx"]])
  }

  func testWhatItDoesNotHaveIsRefused() {
    for (format, delegate, code) in [("coreml", nil, "no-runtime"), ("onnx", "gpu", "no-delegate")] {
      XCTAssertThrowsError(
        try runtimes.runner(format: format, runtime: nil, delegate: delegate, threads: nil)
      ) { XCTAssertEqual(($0 as? Fault)?.code, code) }
    }
  }

  func testALibraryThatIsNoneIsRefused() {
    for path in [graphs.appendingPathComponent("text.onnx").path, "/nowhere", "libc.so.6"] {
      XCTAssertThrowsError(try OnnxRuntimes(library: path)) { error in
        guard case SegmentationError.unavailable(let words) = error else { return XCTFail("\(error)") }
        XCTAssertTrue(words.contains(path), words)
      }
    }
  }

  private func opened(_ encoder: String, _ decoder: String, threads: Int?) throws -> GraphRunner {
    let runner = try runtimes.runner(format: "onnx", runtime: nil, delegate: "cpu", threads: threads)
    let none = ModelDescription.Graph(inputs: [], outputs: [])
    let model = ModelDescription(
      encoder: none, decoder: none, picture: .init(size: 1, padRGB: [0, 0, 0]),
      prompt: .init(slots: 1, promptsPerCall: 1, maskInput: false),
      mask: .init(lowResolution: 1, threshold: 0, score: "iou", pointMasks: 3))
    let files = [encoder, decoder].map { graphs.appendingPathComponent("\($0).onnx") }
    try runner.open(encoder: files[0], decoder: files[1], model: model, cache: graphs)
    return runner
  }

  private func tensor(_ name: String, _ type: TensorSpec.DType) -> Tensor {
    Tensor(TensorSpec(name: name, shape: [1, 3], dtype: type, layout: "NC"))
  }

  private func said(_ error: Error, _ words: String) {
    guard case SegmentationError.runFailed(let told) = error else { return XCTFail("\(error)") }
    XCTAssertTrue(told.contains(words), told)
  }
}
