import HarnessCore
import HarnessCoreML
import XCTest

final class LiveRunTests: XCTestCase {
  private func sample(_ stage: String, _ milliseconds: Int) -> JSONObject {
    ["type": "sample", "job": "a", "stage": .text(stage), "ns": .whole(1_000_000 * milliseconds)]
  }

  func testFramesPerSecondAreThoseOfTheMedianFrame() throws {
    var run = LiveRun()
    XCTAssertNil(run.framesPerSecond)
    XCTAssertNil(run.p90)
    for (stage, time) in [("pre", 1), ("warm-frame", 20), ("frame", 20), ("first-frame", 900), ("frame", 500)] {
      run.take(sample(stage, time))
    }
    XCTAssertEqual(run.frames, [20, 20, 500])
    XCTAssertEqual(try XCTUnwrap(run.p90), 404, accuracy: 1e-9)
    XCTAssertEqual(try XCTUnwrap(run.framesPerSecond), 50, accuracy: 1e-9)
    for _ in 0..<400 { run.take(sample("frame", 10)) }
    XCTAssertEqual(run.frames.count, 300)
    XCTAssertEqual(try XCTUnwrap(run.framesPerSecond), 100, accuracy: 1e-9)
  }

  func testHowMuchSlowerAHotPhoneIsIsSaid() throws {
    var run = LiveRun()
    XCTAssertFalse(run.isRunning)
    for _ in 0..<30 { run.take(sample("warm-frame", 90)) }
    XCTAssertNil(run.slowdown)
    for _ in 0..<30 { run.take(sample("frame", 20)) }
    XCTAssertEqual(try XCTUnwrap(run.slowdown), 1, accuracy: 1e-9)
    for _ in 0..<400 { run.take(sample("frame", 30)) }
    XCTAssertEqual(try XCTUnwrap(run.slowdown), 1.5, accuracy: 1e-9)
    XCTAssertEqual(run.measured, 0.6 + 12, accuracy: 1e-9)
    XCTAssertTrue(run.isRunning)
    run.take(["type": "end", "job": "a", "status": "complete"])
    XCTAssertFalse(run.isRunning)
  }

  func testAScreenIsToldOfSamplesNowAndThenAndOfAllElseAtOnce() {
    let shown = Shown()
    let feed = LiveFeed(every: 3600) { shown.runs.append($0) }
    for _ in 0..<100 { feed.event(sample("frame", 20)) }
    XCTAssertEqual(shown.runs.map(\.frames.count), [1])
    feed.event(["type": "state", "job": "a", "thermal": "fair"])
    feed.event(sample("frame", 20))
    feed.event(["type": "end", "job": "a", "status": "complete"])
    XCTAssertEqual(shown.runs.map(\.frames.count), [1, 100, 101])
    XCTAssertEqual(shown.runs.last?.ended, "complete")
    let eager = LiveFeed(every: 0) { shown.runs.append($0) }
    for _ in 0..<3 { eager.event(sample("frame", 20)) }
    XCTAssertEqual(shown.runs.suffix(3).map(\.frames.count), [1, 2, 3])
  }

  func testAnotherJobBeginsAnew() {
    var run = LiveRun()
    run.take(sample("frame", 10))
    run.take(["type": "error", "job": "a", "message": "out of memory"])
    run.take(["type": "end", "job": "a", "status": "failed"])
    XCTAssertEqual(run.remark, "out of memory")
    XCTAssertEqual(run.ended, "failed")
    run.take(["type": "phase", "job": "b", "name": "gate"])
    XCTAssertEqual([run.job, run.phase, run.remark, run.ended], ["b", "gate", nil, nil])
    XCTAssertEqual(run.frames, [])
  }

  func testWhatSpoilsTheNumbersIsSaid() {
    var run = LiveRun()
    XCTAssertEqual(run.spoilers(harness: ["debugger": false, "build": "release"]), [])
    XCTAssertEqual(run.spoilers(harness: [:], savesPower: true).count, 1, "before any job")
    run.take(["type": "state", "job": "a", "thermal": "critical", "low_power": true])
    XCTAssertEqual(run.spoilers(harness: ["debugger": true, "build": "debug"]).count, 4)
    run.take(["type": "state", "job": "a", "thermal": "fair", "low_power": false])
    XCTAssertEqual(run.spoilers(harness: ["debugger": false, "build": "release"]), [])
  }

  func testAFailedCheckIsSaid() {
    var run = LiveRun()
    run.take(["type": "check", "job": "a", "passed": true])
    XCTAssertNil(run.remark)
    run.take(["type": "check", "job": "a", "passed": false])
    XCTAssertEqual(run.remark, "the masks are not PyTorch's: nothing is timed")
  }
}

/// What a screen was told; by one thread.
private final class Shown: @unchecked Sendable {
  var runs: [LiveRun] = []
}
