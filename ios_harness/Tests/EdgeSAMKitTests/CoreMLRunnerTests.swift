#if os(Linux) && canImport(CoreML)
  import CoreML
  import Foundation
  import XCTest

  @testable import EdgeSAMKit

  /// Against the stand-in of Core ML: our code and our reading of its documentation, not the system.
  final class CoreMLRunnerTests: XCTestCase {
    private var folder = URL(fileURLWithPath: "/")
    private let model = FixtureRunner.model(16, .image, "NCHW", halves: true)

    override func setUpWithError() throws {
      folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
      try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
      try "encoder".write(to: folder.appendingPathComponent("e.mlpackage"), atomically: true, encoding: .utf8)
      try "decoder".write(to: folder.appendingPathComponent("d.mlpackage"), atomically: true, encoding: .utf8)
      StandIn.compilations = 0
      StandIn.loaded = []
    }

    override func tearDownWithError() throws {
      StandIn.meanwhile = {}
      try FileManager.default.removeItem(at: folder)
    }

    private func open(_ runner: CoreMLRunner) throws {
      let cache = folder.appendingPathComponent("cache")
      try FileManager.default.createDirectory(at: cache, withIntermediateDirectories: true)
      try runner.open(
        encoder: folder.appendingPathComponent("e.mlpackage"), decoder: folder.appendingPathComponent("d.mlpackage"),
        model: model, cache: cache)
    }

    func testModelsAreCompiledOnceAndLoadedForTheUnitsAskedFor() throws {
      for (units, expected) in [
        (ComputeUnits.cpuOnly, MLComputeUnits.cpuOnly), (.cpuAndGPU, .cpuAndGPU), (.all, .all),
        (.cpuAndNeuralEngine, .cpuAndNeuralEngine),
      ] {
        StandIn.loaded = []
        try open(CoreMLRunner(computeUnits: units))
        XCTAssertEqual(StandIn.loaded, [expected, expected])
      }
      XCTAssertEqual(StandIn.compilations, 2)
    }

    func testWhatIsKeptAndDoesNotLoadIsCompiledAnew() throws {
      try open(CoreMLRunner())
      try "".write(to: folder.appendingPathComponent("cache/encoder.mlmodelc"), atomically: true, encoding: .utf8)
      let runner = CoreMLRunner()
      try open(runner)
      XCTAssertEqual(StandIn.compilations, 3)
      XCTAssertEqual(runner.compiled.map(\.lastPathComponent), ["encoder.mlmodelc", "decoder.mlmodelc"])
    }

    func testTwoSessionsMayCompileTheSameModelAtOnce() throws {
      let first = CoreMLRunner()
      StandIn.meanwhile = { [self] in
        StandIn.meanwhile = {}
        try open(first)
      }
      let second = CoreMLRunner()
      try open(second)
      XCTAssertEqual(first.compiled, second.compiled)
      XCTAssertEqual(first.compiled.count, 2)
      // The second one's encoder was in vain.
      XCTAssertEqual(StandIn.compilations, 3)
    }

    func testADamagedModelIsTheRuntimesOwnWords() throws {
      try "damaged".write(to: folder.appendingPathComponent("d.mlpackage"), atomically: true, encoding: .utf8)
      let runner = CoreMLRunner()
      XCTAssertThrowsError(try open(runner)) {
        XCTAssertEqual($0 as? SegmentationError, .loadFailed("the model is damaged"))
      }
      XCTAssertThrowsError(try runner.encode([], [])) {
        XCTAssertEqual($0 as? SegmentationError, .runFailed("the model is not loaded"))
      }
    }

    func testThePictureAndTheEmbeddingAreHandedOverWhereTheyLie() throws {
      let runner = CoreMLRunner()
      try open(runner)
      let pipeline = try Pipeline(model: model, runner: runner)
      pipeline.use(try Picture(width: 16, height: 16, rgb: (0..<768).map { UInt8($0 % 251) }))
      pipeline.pre()
      var backing: MLMultiArray?
      StandIn.predict = { name, input, options in
        let picture = try XCTUnwrap(input.featureValue(for: "image")?.imageBufferValue)
        let bytes = UnsafeRawBufferPointer(start: picture.address, count: 1024)
        XCTAssertEqual(name, "encoder")
        XCTAssertEqual([picture.width, picture.height], [16, 16])
        XCTAssertEqual([UInt8](bytes[..<8]), [2, 1, 0, 255, 5, 4, 3, 255])
        backing = options.outputBackings["image_embeddings"] as? MLMultiArray
        return try Self.answer(options)
      }
      try pipeline.encode()
      StandIn.predict = { _, input, options in
        let embedding = input.featureValue(for: "image_embeddings")?.multiArrayValue
        XCTAssertNotNil(embedding)
        XCTAssertTrue(embedding === backing)
        XCTAssertEqual(embedding?.dataType, .float16)
        XCTAssertEqual(input.featureValue(for: "point_coords")?.multiArrayValue?.dataType, .float32)
        for name in ["masks", "best_mask"] {
          Self.fill(try XCTUnwrap(options.outputBackings[name] as? MLMultiArray), 0x3c00)
        }
        return try Self.answer(options)
      }
      try pipeline.decode(Prompt(points: [.init(x: 1, y: 1)]))
      XCTAssertEqual(pipeline.post().area, 256)
      XCTAssertEqual(runner.copied, [])
      XCTAssertNil(runner.note)
    }

    func testWhatCoreMLWritesElsewhereIsCopiedOverGapsAndSaid() throws {
      let runner = CoreMLRunner()
      try open(runner)
      let pipeline = try Pipeline(model: model, runner: runner)
      pipeline.use(try Picture(width: 16, height: 16, rgb: [UInt8](repeating: 0, count: 768)))
      // Rows of 4 numbers, 32 apart; outside of the rows there are numbers that would be the object's.
      let gaps = UnsafeMutableBufferPointer<UInt16>.allocate(capacity: 128)
      defer { gaps.deallocate() }
      gaps.initialize(repeating: 0x3c00)
      for row in 0..<4 {
        for x in 0..<4 {
          gaps[32 * row + x] = row < 2 ? 0x3c00 : 0xbc00
        }
      }
      StandIn.predict = { _, _, options in
        var values = options.outputBackings.compactMapValues {
          ($0 as? MLMultiArray).map(MLFeatureValue.init(multiArray:))
        }
        let elsewhere = try MLMultiArray(
          dataPointer: UnsafeMutableRawPointer(gaps.baseAddress!), shape: [1, 1, 4, 4], dataType: .float16,
          strides: [128, 128, 32, 1])
        values["best_mask"] = MLFeatureValue(multiArray: elsewhere)
        return try MLDictionaryFeatureProvider(dictionary: values)
      }
      try pipeline.decode(Prompt(points: [.init(x: 1, y: 1)]))
      let mask = pipeline.post()
      XCTAssertTrue(mask[0, 0] && mask[15, 7])
      XCTAssertFalse(mask[0, 8] || mask[15, 15])
      XCTAssertEqual(runner.note, "Core ML's own memory, copied: best_mask")
    }

    func testAnOutputThatIsMissingOrAnotherIsNoMask() throws {
      let runner = CoreMLRunner()
      try open(runner)
      let pipeline = try Pipeline(model: model, runner: runner)
      StandIn.predict = { _, _, _ in try MLDictionaryFeatureProvider(dictionary: [:]) }
      XCTAssertThrowsError(try pipeline.encode()) {
        XCTAssertEqual($0 as? SegmentationError, .runFailed("the model gives no image_embeddings"))
      }
      StandIn.predict = { _, _, options in
        let backing = try XCTUnwrap(options.outputBackings["image_embeddings"] as? MLMultiArray)
        return try backing.withUnsafeBytes { bytes in
          let other = try MLMultiArray(
            dataPointer: UnsafeMutableRawPointer(mutating: bytes.baseAddress!), shape: [1, 2], dataType: .float16,
            strides: [2, 1])
          return try MLDictionaryFeatureProvider(dictionary: ["image_embeddings": MLFeatureValue(multiArray: other)])
        }
      }
      XCTAssertThrowsError(try pipeline.encode()) {
        XCTAssertEqual(
          $0 as? SegmentationError, .runFailed("image_embeddings is not what its description says"))
      }
    }

    func testAPackageIsOpenedByItsFolder() async throws {
      let file = { (name: String, digit: String) in
        #"{"path":"\#(name)","sha256":"\#(String(repeating: digit, count: 64))","bytes":7}"#
      }
      let coder = JSONEncoder()
      let graph = { (graph: ModelDescription.Graph, file: String) in
        String(decoding: try coder.encode(graph), as: UTF8.self).dropLast() + #","file":\#(file)}"#
      }
      let text = """
        {"schema":"edgesam.manifest/1","picture":{"size":16,"pad_rgb":[1,2,3]},
        "prompt":{"slots":3,"prompts_per_call":1,"mask_input":false},
        "mask":{"low_resolution":4,"threshold":0,"score":"iou","point_masks":3},
        "artifacts":[{"id":"coreml-fp16","format":"coreml","encoder":\(try graph(model.encoder, file("e.mlpackage", "a"))),
        "decoder":\(try graph(model.decoder, file("d.mlpackage", "b")))}]}
        """
      try text.write(to: folder.appendingPathComponent("manifest.json"), atomically: true, encoding: .utf8)
      let cache = ModelCache(folder: folder.appendingPathComponent("cache"))
      StandIn.predict = { _, _, options in try Self.answer(options) }
      for _ in 0..<2 {
        let session = try await SegmentationSession(package: folder, computeUnits: .cpuOnly, cache: cache)
        try await session.setImage(Picture(width: 2, height: 2, rgb: [UInt8](repeating: 0, count: 12)))
        let found = try await session.segment(points: [.init(x: 1, y: 1)])
        XCTAssertEqual(found.mask.area, 0)
      }
      XCTAssertEqual(StandIn.compilations, 2)
      try cache.prune(keeping: [])
      XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: cache.folder.path), [])
    }

    private static func fill(_ array: MLMultiArray, _ bits: UInt16) {
      array.withUnsafeBytes {
        UnsafeMutableRawBufferPointer(mutating: $0).bindMemory(to: UInt16.self).update(repeating: bits)
      }
    }

    /// The very arrays that were given to write into.
    private static func answer(_ options: MLPredictionOptions) throws -> MLDictionaryFeatureProvider {
      try MLDictionaryFeatureProvider(
        dictionary: options.outputBackings.compactMapValues {
          ($0 as? MLMultiArray).map(MLFeatureValue.init(multiArray:))
        })
    }
  }
#endif
