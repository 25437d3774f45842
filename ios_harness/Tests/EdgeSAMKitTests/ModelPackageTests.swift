import Foundation
import XCTest

@testable import EdgeSAMKit

final class ModelPackageTests: XCTestCase {
  private var folder = URL(fileURLWithPath: "/")

  override func setUpWithError() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  override func tearDownWithError() throws {
    try FileManager.default.removeItem(at: folder)
  }

  private func manifest(_ change: (String, String)? = nil) throws -> ModelPackage {
    let image = #"[{"name":"image","shape":[1,3,8,8],"dtype":"image","layout":"NCHW","meaning":"m"}]"#
    let a = String(repeating: "a", count: 64)
    let graph = { (path: String) in
      #"{"file":{"path":"\#(path)","sha256":"\#(a)","bytes":7},"inputs":\#(image),"outputs":\#(image),"parameters":1}"#
    }
    let text = """
      {"schema":"edgesam.manifest/1","new":1,"picture":{"size":8,"pad_rgb":[1,2,3]},
      "prompt":{"slots":3,"prompts_per_call":1,"mask_input":false},
      "mask":{"low_resolution":2,"threshold":0.0,"score":"iou","point_masks":3},
      "artifacts":[
      {"id":"onnx-fp32","format":"onnx","encoder":\(graph("o/e.onnx")),"decoder":\(graph("o/d.onnx"))},
      {"id":"coreml-fp16","format":"coreml","minimum_os":"iOS 16","encoder":\(graph("c/e.mlpackage")),
      "decoder":\(graph("c/d.mlpackage"))}]}
      """
    if let change {
      XCTAssertTrue(text.contains(change.0), change.0)
    }
    let changed = change.map { text.replacingOccurrences(of: $0.0, with: $0.1) } ?? text
    try changed.write(to: folder.appendingPathComponent("manifest.json"), atomically: true, encoding: .utf8)
    return try ModelPackage(folder: folder)
  }

  func testTheFirstArtefactOfAFormatIsFound() throws {
    let package = try manifest()
    let found = try package.artifact()
    XCTAssertEqual(found.id, "coreml-fp16")
    XCTAssertEqual(found.minimumOS, "iOS 16")
    XCTAssertEqual(found.encoder.path, folder.path + "/c/e.mlpackage")
    XCTAssertEqual(found.model.picture.padRGB, [1, 2, 3])
    XCTAssertEqual(found.model.encoder.inputs[0].bytes, 256)
    XCTAssertEqual(try package.artifact("onnx-fp32", format: "onnx").id, "onnx-fp32")
    XCTAssertThrowsError(try package.artifact("coreml-int8")) {
      XCTAssertEqual(
        ($0 as? SegmentationError)?.message, "the package has no coreml-int8 of format coreml, but coreml-fp16")
    }
  }

  func testAnArtefactThatNeedsANewerSystemIsNotTaken() throws {
    let package = try manifest(
      (#"onnx-fp32","format":"onnx""#, #"new","format":"coreml","minimum_os":"iOS 18""#))
    func chosen(_ id: String? = nil, iOS: Int?) throws -> String {
      try package.artifact(id, format: "coreml") { $0.runs(onIOS: iOS) }.id
    }
    XCTAssertEqual(try chosen(iOS: 17), "coreml-fp16")
    XCTAssertEqual(try chosen(iOS: 18), "new")
    XCTAssertEqual(try chosen("new", iOS: nil), "new", "a system without a version of iOS is asked nothing")
    XCTAssertThrowsError(try chosen("new", iOS: 17)) {
      XCTAssertEqual($0 as? SegmentationError, .unavailable("new needs iOS 18"))
    }
    XCTAssertThrowsError(try chosen(iOS: 15)) {
      XCTAssertEqual($0 as? SegmentationError, .unavailable("new needs iOS 18"))
    }
    let silent = try manifest((#""minimum_os":"iOS 16","#, "")).artifacts[1]
    XCTAssertNil(silent.minimumOS)
    XCTAssertTrue(silent.runs(onIOS: 15))
  }

  func testWhatCannotBeKeptIsATypedError() throws {
    let file = folder.appendingPathComponent("file")
    try Data().write(to: file)
    let artifact = try manifest().artifact()
    XCTAssertThrowsError(try ModelCache(folder: file).folder(for: artifact)) {
      guard case SegmentationError.storage? = $0 as? SegmentationError else { return XCTFail("\($0)") }
    }
    XCTAssertThrowsError(try ModelCache(folder: file).prune(keeping: [artifact])) {
      guard case SegmentationError.storage? = $0 as? SegmentationError else { return XCTFail("\($0)") }
    }
  }

  func testADamagedManifestIsRefusedByItsField() throws {
    let bad = [
      ("manifest/1", "manifest/2", "version edgesam.manifest/2"), (#""slots":3,"#, "", "prompt.slots"),
      ("[1,3,8,8]", "[1,3,8,0]", "artifacts.0.encoder.inputs.0.shape"),
      ("o/e.onnx", "../e.onnx", "artifacts.0.encoder.file.path"),
      ("o/e.onnx", "/e.onnx", "artifacts.0.encoder.file.path"),
      ("aaaaaaaa\"", "../../..\"", "artifacts.0.encoder.file.sha256"),
      (#""artifacts":["#, #""artifacts":"#, "damaged"),
      (#""dtype":"image""#, #""dtype":"int4""#, "artifacts.0.encoder.inputs.0.dtype"),
    ]
    for (from, to, place) in bad {
      XCTAssertThrowsError(try manifest((from, to)), from) { error in
        let message = (error as? SegmentationError)?.message ?? ""
        XCTAssertTrue(message.contains(place), "\(place) in: \(message)")
      }
    }
  }

  func testAFolderWithoutAManifestIsNoPackage() {
    XCTAssertThrowsError(try ModelPackage(folder: folder)) {
      guard case SegmentationError.invalidPackage? = $0 as? SegmentationError else { return XCTFail("\($0)") }
    }
  }

  func testWhatIsKeptOfOtherModelsIsRemoved() throws {
    let cache = ModelCache(folder: folder.appendingPathComponent("cache"))
    try cache.prune(keeping: [])
    let artifacts = try manifest().artifacts
    let kept = try cache.folder(for: artifacts[0])
    try FileManager.default.createDirectory(
      at: cache.folder.appendingPathComponent("old"), withIntermediateDirectories: true)
    try cache.prune(keeping: artifacts)
    XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: cache.folder.path), [kept.lastPathComponent])
  }
}
