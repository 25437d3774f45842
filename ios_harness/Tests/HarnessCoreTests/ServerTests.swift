import MadeUp
import XCTest

@testable import HarnessCore

/// Conversations over a real socket.
///
/// The desktop's own client has its tests in tests/ios/test_server.py.
final class ServerTests: FolderTestCase {
  private let made = MadeUpRuntimes()
  private var server: Server?
  private let over = DispatchSemaphore(value: 0)
  private let content = Data((0..<600_000).map { UInt8(truncatingIfNeeded: $0 &* 31) })

  override func tearDownWithError() throws {
    try stop()
    try super.tearDownWithError()
  }

  func testAJobIsCarriedWholeAndFetchedAgain() throws {
    try MadeUpJob.writeFiles(folder)
    let client = try connect()
    try client.send(MadeUpJob.line())
    let events = try client.events(upTo: "end")
    XCTAssertEqual(events.last?["status"], "complete")
    XCTAssertEqual(events.compactMap { $0["seq"]?.whole }, Array(events.indices))
    try client.send(["type": "fetch", "job": "job-1", "from": 7])
    XCTAssertEqual(try client.events(upTo: "end"), Array(events[7...]))
    try client.send(["type": "fetch", "job": "job-9", "from": 0])
    XCTAssertEqual(try client.next()?["code"], "not-found")
    try client.send(["type": "bye"])
    XCTAssertNil(try client.next())
  }

  func testAJobOutlivesItsSession() throws {
    try MadeUpJob.writeFiles(folder)
    made.pace = 0.02
    do {
      let client = try connect()
      try client.send(MadeUpJob.line([("'rounds':4", "'rounds':30")]))
      _ = try client.events(upTo: "sample")
    }
    let client = try connect()
    try client.send(["type": "fetch", "job": "job-1", "from": 0])
    XCTAssertEqual(try client.events(upTo: "end").last?["status"], "complete")
  }

  func testAFileComesInPiecesAndGoesOnWhereItBrokeOff() throws {
    try serve()
    let digest = sha256(content)
    let path = "models/\(digest)/encoder"
    let put: JSONObject = [
      "type": "put", "path": .text(path), "bytes": .whole(content.count), "sha256": .text(digest),
    ]
    do {
      let client = try connect()
      try client.send(put)
      XCTAssertEqual(try client.next()?["offset"], 0)
      XCTAssertEqual(files(), [])
      try client.send(chunk(path, 0, 250_000))
      try client.send(["type": "dance"])
      XCTAssertEqual(try client.next()?["code"], "unknown-type")
    }
    XCTAssertEqual(files(), ["\(path).part"])
    let client = try connect()
    try client.send(put)
    XCTAssertEqual(try client.next()?["offset"], 250_000)
    try client.send(chunk(path, 250_000, 500_000))
    try client.send(chunk(path, 500_000, 600_000))
    let ready = try client.next()
    XCTAssertEqual(ready?["complete"], true)
    XCTAssertEqual(ready?["offset"], 600_000)
    XCTAssertEqual(try Data(contentsOf: folder.appendingPathComponent(path)), content)
    try client.send(put)
    XCTAssertEqual(try client.next()?["complete"], true)
    try Data(count: 600_000).write(to: folder.appendingPathComponent(path))  // as failing storage does
    try client.send(put)
    XCTAssertEqual(try client.next()?["offset"], 0)
    XCTAssertEqual(files(), [])
  }

  func testWhatArrivesDamagedIsRemovedAndItsRestDropped() throws {
    let client = try connect()
    let path = "inputs/\(sha256(content))/x"
    let wrong = String(repeating: "a", count: 64)
    try client.send(["type": "put", "path": .text(path), "bytes": 3, "sha256": .text(wrong)])
    XCTAssertEqual(try client.next()?["complete"], false)
    try client.send(chunk(path, 0, 3))
    XCTAssertEqual(try client.next()?["code"], "hash-mismatch")
    try client.send(chunk(path, 3, 6))  // was on its way
    try client.send(["type": "put", "path": .text(path), "bytes": 0, "sha256": .text(sha256(Data()))])
    XCTAssertEqual(try client.next()?["complete"], true)  // an empty file comes without a chunk
    XCTAssertEqual(files(), [path])
  }

  func testChunksThatDoNotFitEndTheSession() throws {
    let path = "inputs/\(sha256(content))/x"
    let put: JSONObject = ["type": "put", "path": .text(path), "bytes": 3, "sha256": .text(sha256(content))]
    for (from, to, code) in [(1, 2, "bad-line"), (0, 4, "too-large")] {
      let client = try connect()
      try client.send(put)
      XCTAssertEqual(try client.next()?["type"], "ready")
      try client.send(chunk(path, from, to))
      XCTAssertEqual(try client.next()?["code"], .text(code))
      XCTAssertNil(try client.next())
    }
  }

  func testNothingIsWrittenOutsideOfTheTwoFolders() throws {
    let outside = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.createDirectory(at: outside, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: outside) }
    let hash = String(repeating: "a", count: 64)
    let links = [("models", outside.path), ("inputs/\(hash)/x.part", outside.path + "/x")]
    try FileManager.default.createDirectory(
      at: folder.appendingPathComponent("inputs/\(hash)"), withIntermediateDirectories: true)
    for (link, target) in links {
      try FileManager.default.createSymbolicLink(atPath: "\(folder.path)/\(link)", withDestinationPath: target)
    }
    let client = try connect()
    for path in ["../x", "/x", "jobs/x", "models/\(hash)/x", "inputs/\(hash)/x", "inputs/\(hash)/y.part"] {
      try client.send(["type": "put", "path": .text(path), "bytes": 3, "sha256": .text(hash)])
      try client.send(chunk("inputs/\(hash)/x", 0, 3))
      var event = try XCTUnwrap(try client.next())
      if event["type"] == "ready" {
        event = try XCTUnwrap(try client.next())
      }
      XCTAssertEqual(event["code"], "bad-path", path)
    }
    XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: outside.path), [])
  }

  func testAFileWhereAFolderIsWantedIsRefusedAndTheOtherWayRound() throws {
    let client = try connect()
    let hash = sha256(Data())
    func put(_ name: String) throws -> JSON? {
      try client.send(["type": "put", "path": .text("inputs/\(hash)/\(name)"), "bytes": 0, "sha256": .text(hash)])
      let event = try client.next()
      return event?["code"] ?? event?["complete"]
    }
    XCTAssertEqual(try put("a/b"), true)
    XCTAssertEqual(try put("a"), "bad-path")
    XCTAssertEqual(try put("a/b/c"), "bad-path")
    XCTAssertEqual(try put("a/b/c/d"), "bad-path")
    XCTAssertEqual(try put("a/d"), true)
  }

  func testBadRequestsAreAnsweredAndEndTheSessionOrNot() throws {
    let cases: [(String, String, Bool)] = [
      ("not json", "bad-line", true), (#"{"type":"fetch"}"#, "bad-line", true),
      (#"{"type":"bye","pad":""# + String(repeating: "x", count: 1 << 20) + #""}"#, "too-large", true),
      (#"{"type":"bye","protocol":"edgesam.harness/2"}"#, "unknown-version", true),
      (#"{"type":"dance"}"#, "unknown-type", false), (#"{"type":"cancel","job":"no-such"}"#, "not-found", false),
    ]
    for (line, code, ends) in cases {
      let client = try connect()
      try? client.send(Array("\(line)\n{\"type\":\"dance\"}\n".utf8))
      XCTAssertEqual(try client.next()?["code"], .text(code))
      XCTAssertEqual(try client.next() == nil, ends, code)
    }
  }

  func testASecondDesktopIsToldThatTheHarnessIsBusy() throws {
    let first = try connect()
    let port = try XCTUnwrap(server?.port)
    let second = try Client(port: port)
    let event = try second.next()
    XCTAssertEqual(event?["code"], "busy")
    XCTAssertEqual(event?["seq"], 0)
    XCTAssertNil(try second.next())
    try first.send(["type": "dance"])
    XCTAssertEqual(try first.next()?["code"], "unknown-type")
  }

  func testASilentSessionIsEndedUnlessAJobRuns() throws {
    try MadeUpJob.writeFiles(folder)
    made.pace = 0.05
    try serve(idle: 0.3)
    let silent = try connect()
    try silent.send(Array("{\"type\":\"by".utf8))
    XCTAssertNil(try silent.next())
    let client = try connect()
    try client.send(MadeUpJob.line([("'rounds':4", "'rounds':12")]))
    XCTAssertEqual(try client.events(upTo: "end").last?["status"], "complete")
  }

  func testItListensOnTheLoopbackInterfaceOnly() throws {
    try serve()
    let port = try XCTUnwrap(server?.port)
    #if os(Linux)
      // All of 127/8 is this machine: whatever listens on every interface would answer here, too.
      XCTAssertThrowsError(try Client(port: port, address: "127.0.0.2"))
    #endif
    XCTAssertThrowsError(try Server(folder: folder, runtimes: made, probe: MadeUpProbe(), port: port))
  }

  func testStoppingCancelsTheJob() throws {
    try MadeUpJob.writeFiles(folder)
    made.pace = 0.02
    let client = try connect()
    try client.send(MadeUpJob.line([("'rounds':4", "'rounds':100000")]))
    _ = try client.events(upTo: "check")
    try stop()
    let kept = try String(contentsOfFile: "\(folder.path)/jobs/job-1.jsonl", encoding: .utf8)
    XCTAssertTrue(kept.split(separator: "\n").last?.contains("\"cancelled\"") ?? false)
  }

  func testAPortIsFreeWhenItsServerHasStoppedWhoeverStillHoldsIt() throws {
    try serve()
    let former = try XCTUnwrap(server)
    try stop()
    XCTAssertNoThrow(try Server(folder: folder, runtimes: made, probe: MadeUpProbe(), port: former.port))
  }

  func testAKilledHarnessLeavesAJobThatIsLost() throws {
    try FileManager.default.createDirectory(
      at: folder.appendingPathComponent("jobs"), withIntermediateDirectories: true)
    try Data("{\"type\":\"hello\",\"seq\":0}\n{\"type\":\"pha".utf8).write(
      to: folder.appendingPathComponent("jobs/job-1.jsonl"))
    let client = try connect()
    try client.send(["type": "fetch", "job": "job-1", "from": 0])
    XCTAssertEqual(try client.next()?["type"], "hello")
    let lost = try client.next()
    XCTAssertEqual(lost?["code"], "job-lost")
    XCTAssertNil(lost?["job"])
    try client.send(["type": "cancel", "job": "job-1"])
    XCTAssertEqual(try client.next()?["code"], "not-found")
  }

  func testWhateverItIsToldItGoesOn() throws {
    var chance = Chance(seed: 3)
    let recorded = URL(fileURLWithPath: #filePath).deletingLastPathComponent()
      .appendingPathComponent("../../../tests/protocol/streams/requests.jsonl")
    let requests = lines(Array(try Data(contentsOf: recorded)))
    for _ in 0..<25 {
      var said = (0..<chance.below(6)).flatMap { _ in requests[chance.below(requests.count)] }
      for _ in 0..<chance.below(3) where !said.isEmpty {
        said[chance.below(said.count)] = UInt8(chance.below(256))
      }
      try? connect().send(said)
    }
    XCTAssertNoThrow(try connect())
    let strays = try FileManager.default.contentsOfDirectory(atPath: folder.path)
    XCTAssertEqual(Set(strays).subtracting(["jobs", "models", "inputs", "cache"]), [])
  }

  private func chunk(_ path: String, _ from: Int, _ to: Int) -> JSONObject {
    let data = content[from..<to].base64EncodedString()
    return ["type": "chunk", "path": .text(path), "offset": .whole(from), "data": .text(data)]
  }

  private func sha256(_ data: Data) -> String {
    var digest = Digest()
    data.withUnsafeBytes { digest.update($0) }
    return digest.hexadecimal()
  }

  private func serve(idle: Double = 60) throws {
    let server = try Server(folder: folder, runtimes: made, probe: MadeUpProbe(), port: 0, idle: idle)
    self.server = server
    Thread.detachNewThread { [over] in
      try? server.run()
      over.signal()
    }
  }

  private func stop() throws {
    server?.stop()
    if server != nil {
      XCTAssertEqual(over.wait(timeout: .now() + 60), .success)
    }
    server = nil
  }

  /// A new session, greeted; waits until the one before is over.
  private func connect() throws -> Client {
    if server == nil {
      try serve()
    }
    let port = try XCTUnwrap(server?.port)
    for _ in 0..<100 {
      let client = try Client(port: port)
      let event = try client.next()
      if event?["type"] == "hello" {
        XCTAssertNil(event?["job"])
        return client
      }
      Thread.sleep(forTimeInterval: 0.05)
    }
    throw Fault("busy", "the session before does not end")
  }
}
