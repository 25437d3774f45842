import EdgeSAMKit
import XCTest

@testable import HarnessCore

final class PartsTests: FolderTestCase {
  func testTheKernelComputesTheSameEveryTime() {
    let kernel = ReferenceKernel()
    XCTAssertEqual(kernel.run(), ReferenceKernel.checksum)
    XCTAssertEqual(kernel.run(), ReferenceKernel.checksum)
  }

  func testAWarmUpEndsWhenMediansOfTwoWindowsAgree() {
    var warmUp = WarmUp(.init(rounds: 100, seconds: 100, window: 3, tolerance: 0.05), begun: 0)
    for ms: UInt64 in [90, 60, 50, 51, 49] {
      warmUp.took(ms)
      XCTAssertFalse(warmUp.isOver(at: 1))
    }
    for ms: UInt64 in [500, 50, 50] {  // one disturbed frame of three is passed over
      warmUp.took(ms)
    }
    XCTAssertTrue(warmUp.isStable)
    XCTAssertEqual(warmUp.rounds, 8)
  }

  func testAWarmUpEndsAtItsLimits() {
    var warmUp = WarmUp(.init(rounds: 2, seconds: 100, window: 1, tolerance: 0), begun: 0)
    warmUp.took(10)
    XCTAssertFalse(warmUp.isOver(at: 0))
    warmUp.took(20)
    XCTAssertTrue(warmUp.isOver(at: 0))
    XCTAssertFalse(warmUp.isStable)
    XCTAssertTrue(
      WarmUp(.init(rounds: 9, seconds: 1, window: 1, tolerance: 0), begun: 5).isOver(at: 1_000_000_005))
  }

  func testAGateIsShutByHeatThatTheDeviceTells() throws {
    let gate = try XCTUnwrap(
      MadeUpJob.read([("'thermal_gate':null", "'thermal_gate':{'thermal':'fair','battery_c':35,'wait':9}")]).gate)
    XCTAssertNil(gate.shut(by: ["thermal": "fair"]))
    XCTAssertNil(gate.shut(by: ["thermal": nil]))
    XCTAssertNil(gate.shut(by: [:]))
    XCTAssertEqual(gate.shut(by: ["thermal": "serious"]), "thermal state serious")
    XCTAssertEqual(gate.shut(by: ["battery": ["celsius": 35.1]]), "a battery of 35.1 degrees")
  }

  func testBadJobsAreRefusedByFieldAndCode() {
    let bad = [
      ("'job':'job-1'", "'job':'Job 1'", "bad-line", "job.job"),
      ("'rounds':4", "'rounds':0", "bad-line", "job.measure.rounds"),
      ("'rounds':4", "'rounds':'4'", "bad-line", "job.measure.rounds"),
      ("'rounds':4", "'rounds':4.0", "bad-line", "job.measure.rounds"),
      ("'rounds':4", "'rounds':true", "bad-line", "job.measure.rounds"),
      ("'measure':{'seconds':0", "'measure':{'seconds':-1", "bad-line", "job.measure.seconds"),
      ("'labels':[1,0]", "'labels':[1]", "bad-line", "job.frame.labels"),
      ("'labels':[1,0]", "'labels':[1,4]", "bad-line", "job.frame.labels"),
      ("'points':[[3,4]]", "'points':[[3]]", "bad-line", "job.golden.0.points"),
      ("'least_iou':0.9,", "", "bad-line", "job.least_iou"),
      ("'path':'models/encoder'", "'path':'../encoder'", "bad-path", "job.encoder.path"),
      ("'path':'models/encoder'", "'path':'/encoder'", "bad-path", "job.encoder.path"),
      ("'inputs/mask'", "'inputs/.hidden'", "bad-path", "job.golden.0.mask"),
      ("'shape':[1,3]", "'shape':[1000,1000,1000]", "too-large", "point_labels"),
      ("'shape':[1,3]", "'shape':[2147483647,2147483647,2147483647]", "too-large", "point_labels"),
      ("'shape':[1,3]", "'shape':[1,0]", "bad-line", "job.decoder.inputs.2.shape"),
      (
        "'name':'image','shape':[1,16,16,3],'dtype':'float32'", "'name':'image','shape':[1],'dtype':'float64'",
        "bad-line", "job.encoder.inputs.0.dtype"
      ),
      ("harness/1", "harness/2", "unknown-version", "harness/2"),
      ("'type':'job'", "'type':'dance'", "unknown-type", "dance"),
      ("'thermal_gate':null", "'thermal_gate':{'thermal':'mild','wait':1}", "bad-line", "job.thermal_gate.thermal"),
    ]
    for (old, new, code, place) in bad {
      XCTAssertThrowsError(try MadeUpJob.read([(old, new)]), new) { error in
        let fault = Fault(error)
        XCTAssertEqual(fault.code, code, new)
        XCTAssertTrue(fault.message.contains(place), fault.message)
        XCTAssertFalse(fault.message.contains("\n"))
      }
    }
  }

  func testFaultsAreOneLineEach() {
    let fault = Fault("internal", "a\r\nb\u{1b}[31m", hint: "c\nd")
    XCTAssertEqual(fault.message, "a  b [31m")
    XCTAssertEqual(fault.hint, "c d")
    XCTAssertEqual(Fault("internal", String(repeating: "x", count: 9999)).message.count, 500)
    XCTAssertEqual(
      Fault(SegmentationError.loadFailed("no")),
      Fault("load-failed", "no", hint: SegmentationError.loadFailed("").hint))
  }

  func testOurOwnHashIsSHA256() {
    // From FIPS 180-4's examples and the well-known one of a million letters.
    let known = [
      ("", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
      ("abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
      (
        "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
      ),
      (String(repeating: "a", count: 100_000), "6d1cf22d7cc09b085dfc25ee1a1f3ae0265804c607bc2074ad253bcc82fd81ee"),
    ]
    for (text, expected) in known {
      var whole = PortableSHA256()
      Array(text.utf8).withUnsafeBytes { whole.update($0) }
      XCTAssertEqual(whole.finalized().map(Digest.digits).joined(), expected)
      var pieces = PortableSHA256()
      for start in stride(from: 0, to: text.utf8.count, by: 61) {
        Array(text.utf8.dropFirst(start).prefix(61)).withUnsafeBytes { pieces.update($0) }
      }
      XCTAssertEqual(pieces.finalized(), whole.finalized())
    }
  }

  func testPathsAreOfPlainNames() {
    for good in ["a", "models/x/y.z", "_a/B-1+2.bin"] {
      XCTAssertTrue(Names.isPath(good), good)
    }
    for bad in [
      "", "/", "a/", "/a", "a//b", "..", "a/../b", ".a", "a/.b", "a b", "a\\b", "ä", "a\n", "a\0", "\u{212a}",
      String(repeating: "a", count: 201),
    ] {
      XCTAssertFalse(Names.isPath(bad), bad)
    }
    let hash = String(repeating: "a", count: 64)
    XCTAssertTrue(Names.isStored("models/\(hash)/x.mlpackage/y"))
    for bad in ["models/\(hash)", "models/x/y", "jobs/\(hash)/x", "models/\(hash)/x.part", "models/\(hash)/x.part/y"] {
      XCTAssertFalse(Names.isStored(bad), bad)
    }
  }

  func testLinesComeOutOfAnyPieces() throws {
    let text = Array("one\n\nthree\nrest".utf8)
    for size in [1, 2, 5, 100] {
      var lines = Lines()
      var found: [String] = []
      for start in stride(from: 0, to: text.count, by: size) {
        lines.feed(Array(text.dropFirst(start).prefix(size)))
        while let line = try lines.next() {
          found.append(String(decoding: line, as: UTF8.self))
        }
      }
      XCTAssertEqual(found, ["one\n", "\n", "three\n"])
    }
    var endless = Lines()
    endless.feed([UInt8](repeating: 120, count: 1 << 20))
    XCTAssertEqual(code { _ = try endless.next() }, "too-large")
  }

  func testWhatLinuxTellsInFilesIsRead() throws {
    let status = folder.appendingPathComponent("status")
    try Data("Name:\tx\nVmRSS:\t  1234 kB\nTracerPid:\t0\nVmHWM: none\n".utf8).write(to: status)
    XCTAssertEqual(ProcFiles.number(status.path, "VmRSS:"), 1234)
    XCTAssertEqual(ProcFiles.number(status.path, "TracerPid:"), 0)
    XCTAssertNil(ProcFiles.number(status.path, "VmHWM:"))
    XCTAssertNil(ProcFiles.number(status.path, "VmSwap:"))
    XCTAssertNil(ProcFiles.number(folder.path + "/nothing", "VmRSS:"))
    for (core, clock) in [(0, "1800000\n"), (1, "<unsupported>\n")] {
      let place = folder.appendingPathComponent("cpu\(core)/cpufreq")
      try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
      try Data(clock.utf8).write(to: place.appendingPathComponent("scaling_cur_freq"))
    }
    XCTAssertEqual(ProcFiles.clocks(folder.path), [1_800_000, nil])
    XCTAssertNil(ProcFiles.clocks(folder.path + "/nothing"))
  }

  func testTheSystemTellsOfThisMachineAndGuessesNothing() {
    let probe = SystemProbe(name: "n", version: "1")
    XCTAssertEqual(probe.harness()["debugger"], false)
    let device = probe.device()
    XCTAssertEqual(device["class"], "host")
    XCTAssertEqual(device["id"], .null)
    XCTAssertGreaterThan(device["memory_bytes"]?.whole ?? 0, 1 << 28)
    XCTAssertGreaterThan(device["cores"]?.whole ?? 0, 0)
    let before = probe.nanos()
    probe.sleep(0.01)
    XCTAssertGreaterThan(probe.nanos() - before, 9_000_000)
    #if os(Linux)
      let memory = probe.state()["memory"]?.object
      XCTAssertGreaterThanOrEqual(memory?["peak_bytes"]?.whole ?? 0, memory?["bytes"]?.whole ?? .max)
      XCTAssertNil(probe.state()["thermal"])
    #endif
  }
}
