import MadeUp
import XCTest

@testable import HarnessCore

/// Whole jobs on a made-up runtime; their streams are read as the desktop reads them.
final class HarnessTests: FolderTestCase {
  private let made = MadeUpRuntimes()
  private let probe = MadeUpProbe()
  private var observer: Watching?

  override func setUpWithError() throws {
    try super.setUpWithError()
    try MadeUpJob.writeFiles(folder)
  }

  func testAGoodJobIsWholeAndSeen() throws {
    let watching = Watching()
    observer = watching
    let events = try run(status: "complete")
    XCTAssertEqual(values(events, "phase", "name"), ["gate", "check", "load", "first", "warm-up", "measure"])
    let stages = values(events, "sample", "stage").compactMap { $0?.text }
    for (stage, count) in [("frame", 4), ("first-encode", 1), ("load-cold", 1), ("load-cached", 0), ("kernel", 2)] {
      XCTAssertEqual(stages.filter { $0 == stage }.count, count, stage)
    }
    XCTAssertEqual(made.labels, [1, 0, -1])
    XCTAssertEqual(made.opened, 2)
    XCTAssertEqual(watching.events, events)
    XCTAssertEqual(events.first?["job"], "job-1")
    XCTAssertEqual(values(events, "result", "warm_up"), [["rounds": 4, "stable": true]])
    XCTAssertEqual(
      values(events, "result", "placement"),
      [[["graph": "decoder", "operation": "guess", "device": "cpu", "cost": 1.0]]])
  }

  func testAFrameIsItsFourSteps() throws {
    var sums: [String: Int] = [:]
    for event in try run(status: "complete") where event["type"] == "sample" {
      let stage = event["stage"]?.text ?? ""
      sums[["pre", "encode", "decode", "post"].contains(stage) ? "steps" : stage, default: 0] +=
        event["ns"]?.whole ?? 0
    }
    XCTAssertEqual(sums["frame"], sums["steps"])
    XCTAssertEqual(sums["steps"], 4 * 4 * 1_000_000)
  }

  func testWhatARuntimeKeepsOnDiskIsLoadedTwice() throws {
    made.keepsOnDisk = true
    let events = try run(status: "complete")
    XCTAssertEqual(values(events, "sample", "stage").prefix(3), ["kernel", "load-cold", "load-cached"])
    XCTAssertEqual(made.opened, 3)
  }

  func testAWrongMaskFailsBeforeAnythingIsTimed() throws {
    made.logits[2] = -1
    let events = try run(status: "failed")
    XCTAssertEqual(values(events, "sample", "stage"), [])
    XCTAssertEqual(values(events, "check", "passed"), [false])
  }

  func testAnExpectedMaskOfAnotherSizeFailsTheCheck() throws {
    try (Data("P4\n10 20\n".utf8) + Data(repeating: 0xff, count: 40)).write(
      to: folder.appendingPathComponent("inputs/mask"))
    let masks = values(try run(status: "failed"), "check", "masks")
    XCTAssertEqual(masks.first??.list?.first?.object?["iou"]?.number, 0)
  }

  func testEveryFaultHasItsCode() throws {
    for (step, code) in [
      ("load", "load-failed"), ("encode", "run-failed"), ("decode", "run-failed"), ("fault", "internal"),
    ] {
      made.failsIn = step
      try assertFault(code)
    }
    made.failsIn = ""
    try assertFault("no-runtime", ("'format':'made-up'", "'format':'other'"))
    try assertFault("no-runtime", ("'runtime':null", "'runtime':'other'"))
    try assertFault("no-delegate", ("'delegate':'cpu'", "'delegate':'gpu'"))
    try assertFault("not-found", ("'inputs/mask'", "'inputs/nothing'"))
    try assertFault("bad-line", ("'inputs/picture','points':[[3.0", "'inputs/mask','points':[[3.0"))
    try assertFault("bad-line", ("'slots':3", "'slots':2"))
    try assertFault("bad-line", ("'shape':[1,3,2]", "'shape':[1,3,3]"))
  }

  func testADamagedModelIsRemoved() throws {
    try Data([1]).write(to: folder.appendingPathComponent("models/decoder"))
    try assertFault("hash-mismatch")
    XCTAssertFalse(FileManager.default.fileExists(atPath: folder.path + "/models/decoder"))
  }

  func testAModelMayBeAFolderWhoseHashIsTheManifests() throws {
    let model = folder.appendingPathComponent("models/model.mlpackage")
    try FileManager.default.createDirectory(
      at: model.appendingPathComponent("Data"), withIntermediateDirectories: true)
    try Data("{}".utf8).write(to: model.appendingPathComponent("Manifest.json"))
    try Data("weights".utf8).write(to: model.appendingPathComponent("Data/weight.bin"))
    // As edgesam_mobile.files.sha256_of says of the same folder.
    let hash = "b9e9a22828cc322d86e471a5cb89863af80c2c7e9ca2fd7e6322d3269e5a5212"
    let change = (
      "'path':'models/encoder','sha256':'e3b0", "'path':'models/model.mlpackage','sha256':'\(hash)','was':'e3b0"
    )
    XCTAssertEqual(try Storage.sha256(model.path), hash)
    _ = try run([change], status: "complete")
    try Data("Weights".utf8).write(to: model.appendingPathComponent("Data/weight.bin"))
    try assertFault("hash-mismatch", change)
    XCTAssertFalse(FileManager.default.fileExists(atPath: model.path))
  }

  func testALinkOutOfTheFolderIsRefused() throws {
    let outside = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try Data().write(to: outside)
    defer { try? FileManager.default.removeItem(at: outside) }
    for (link, target) in [
      ("models/link", outside.path), ("models/dangling", "/nowhere/at/all"), ("models/loop", "loop"),
    ] {
      try FileManager.default.createSymbolicLink(atPath: "\(folder.path)/\(link)", withDestinationPath: target)
      try assertFault("bad-path", ("models/encoder", link))
    }
    XCTAssertTrue(FileManager.default.fileExists(atPath: outside.path))
  }

  func testAJobIsRunOnceAndAnotherOneWaits() throws {
    made.pace = 0.05
    let harness = try harness()
    let kept = try harness.start(try MadeUpJob.read())
    XCTAssertEqual(code { _ = try harness.start(try MadeUpJob.read()) }, "bad-line")
    let busy = try self.events(of: try harness.start(try MadeUpJob.read([("job-1", "job-2")])))
    XCTAssertEqual(busy.compactMap { $0["type"]?.text }, ["hello", "error", "end"])
    XCTAssertEqual(values(busy, "error", "code"), ["busy"])
    XCTAssertEqual(try self.events(of: kept).last?["status"], "complete")
    XCTAssertEqual(
      try self.events(of: try harness.start(try MadeUpJob.read([("job-1", "job-3")]))).last?["status"], "complete")
  }

  func testTheLastJobIsRunAgainForLongerWithoutADesktop() throws {
    let watching = Watching()
    observer = watching
    let harness = try harness()
    XCTAssertEqual(code { try harness.again(seconds: 1) }, "not-found")
    _ = try events(of: try harness.start(try MadeUpJob.read()))
    let before = watching.events.count
    made.pace = 0.01
    // The app may have been started anew; the clock goes on by itself.
    let later = try self.harness()
    try later.again(seconds: 0.5)
    XCTAssertEqual(code { try later.again(seconds: 1) }, "busy")
    XCTAssertEqual(code { try later.again(seconds: 1e6) }, "bad-line")
    later.stop()
    let seen = Array(watching.events[before...])
    let id = try XCTUnwrap(seen.first?["job"]?.text)
    XCTAssertTrue(id.hasPrefix("again-"))
    let kept = try events(of: try later.kept(id))
    XCTAssertEqual(kept, seen)
    XCTAssertEqual(kept.last?["status"], "cancelled")
    made.pace = 0
    try later.again(seconds: 0.5)
    while watching.events.last?["status"] != "complete" { Thread.sleep(forTimeInterval: 0.01) }
    // A frame reads the clock some ten times, each a millisecond: four frames would not take half a second.
    XCTAssertGreaterThan(try XCTUnwrap(values(watching.events, "result", "rounds").last??.whole), 20)
    let last = try JSONReader.object(Array(try Data(contentsOf: folder.appendingPathComponent("jobs/last.json"))))
    XCTAssertEqual(last, try MadeUpJob.read().source, "it is still the desktop's job that is run again")
  }

  func testAHotDeviceIsWaitedFor() throws {
    probe.thermal = "serious"
    probe.coolsAfter = 3
    let events = try run([("'thermal_gate':null", "'thermal_gate':{'thermal':'fair','wait':60}")], status: "complete")
    XCTAssertEqual(values(events, "state", "thermal").prefix(4), ["serious", "serious", "serious", "nominal"])
  }

  func testADeviceThatStaysHotIsAnError() throws {
    probe.thermal = "critical"
    try assertFault("hot", ("'thermal_gate':null", "'thermal_gate':{'thermal':'fair','wait':5}"))
  }

  func testAJobIsCancelledBetweenFrames() throws {
    made.pace = 0.002
    let harness = try harness()
    let kept = try harness.start(try MadeUpJob.read([("'rounds':4", "'rounds':1000000")]))
    XCTAssertEqual(code { try harness.cancel("another") }, "not-found")
    while try !String(contentsOf: folder.appendingPathComponent("jobs/job-1.jsonl"), encoding: .utf8).contains(
      "first-frame")
    {
      Thread.sleep(forTimeInterval: 0.01)
    }
    try harness.cancel("job-1")
    let events = try self.events(of: kept)
    XCTAssertEqual(events.last?["status"], "cancelled")
    XCTAssertEqual(values(events, "result", "rounds"), [])
    XCTAssertEqual(code { try harness.cancel("job-1") }, "not-found")
  }

  #if os(Linux)  // which has a file that is always full
    func testWhatCannotBeKeptIsTold() throws {
      let full = open("/dev/full", O_WRONLY)
      let kept = Kept(path: "/dev/null", file: full)
      XCTAssertEqual(code { try kept.append("{}") }, "no-space")
      XCTAssertEqual(code { try kept.append("{}") }, "internal")
      kept.finish()
      let why = try kept.send(from: 0, while: { true }) { _ in }
      XCTAssertEqual(why, "its events could not be kept: \(SystemError(ENOSPC).words)")
    }
  #endif

  func testOfABrokenStreamWholeLinesAreSentAndThenWhy() throws {
    let path = folder.appendingPathComponent("jobs-9.jsonl")
    try Data("{\"seq\":0}\n{\"seq\":1}\n{\"se".utf8).write(to: path)
    var sent: [UInt8] = []
    let why = try Kept(finishedAt: path.path).send(from: 1, while: { true }) { sent += $0 }
    XCTAssertEqual(String(decoding: sent, as: UTF8.self), "{\"seq\":1}\n")
    XCTAssertEqual(why, "it broke off: the harness was killed, or the device restarted")
  }

  private func assertFault(_ code: String, _ changes: (String, String)...) throws {
    try? FileManager.default.removeItem(atPath: "\(folder.path)/jobs/job-1.jsonl")
    let events = try run(changes, status: "failed")
    XCTAssertEqual(values(events, "error", "code"), [.text(code)])
  }

  /// Runs a job to its end; gives its events, after they were read as a whole stream.
  private func run(_ changes: [(String, String)] = [], status: String) throws -> [JSONObject] {
    let events = try events(of: try harness().start(try MadeUpJob.read(changes)))
    XCTAssertEqual(events.last?["status"], .text(status))
    return events
  }

  private func events(of kept: Kept) throws -> [JSONObject] {
    var bytes: [UInt8] = []
    XCTAssertNil(try kept.send(from: 0, while: { true }) { bytes += $0 })
    var reader = StreamReader()
    lines(bytes).forEach { reader.take($0) }
    XCTAssertEqual(reader.ending, "whole")
    return try lines(bytes).map(JSONReader.object)
  }

  private func harness() throws -> Harness {
    Harness(storage: try Storage(folder), runtimes: made, probe: probe, observer: observer)
  }

  private func values(_ events: [JSONObject], _ type: String, _ field: String) -> [JSON?] {
    events.filter { $0["type"] == .text(type) }.map { $0[field] }
  }
}

/// Remembers what it sees.
private final class Watching: JobObserver, @unchecked Sendable {
  private let lock = NSLock()
  private var seen: [JSONObject] = []

  var events: [JSONObject] {
    lock.lock()
    defer { lock.unlock() }
    return seen
  }

  func event(_ event: JSONObject) {
    lock.lock()
    defer { lock.unlock() }
    seen.append(event)
  }
}
