import Foundation
import XCTest

@testable import EdgeSAMKit

final class SessionTests: XCTestCase {
  private let here = URL(fileURLWithPath: "/")

  private func session(_ runner: FixtureRunner) async throws -> SegmentationSession {
    try await SegmentationSession(
      model: FixtureRunner.model(16), encoder: here, decoder: here, cache: here, runner: { runner })
  }

  /// All of one shade, which the made-up embedding carries to the scores.
  private func picture(_ shade: UInt8, width: Int = 16, height: Int = 16) throws -> Picture {
    try Picture(width: width, height: height, rgb: [UInt8](repeating: shade, count: 3 * width * height))
  }

  func testAPromptIsAnsweredWithAMaskOfThePicturesSize() async throws {
    let runner = FixtureRunner()
    let session = try await session(runner)
    let times = try await session.setImage(picture(5, width: 20, height: 10))
    XCTAssertGreaterThan(times.pre, .zero)
    XCTAssertEqual(times.convert, .zero)
    let found = try await session.segment(
      points: [.init(x: 20, y: 0)], box: .init(left: 1, top: 2, right: 10, bottom: 9))
    XCTAssertEqual([found.mask.width, found.mask.height, found.mask.area], [20, 10, 200])
    XCTAssertEqual(found.index, 2)
    XCTAssertEqual(found.score, 7)
    XCTAssertEqual(found.logits, [Float](repeating: 1, count: 16))
    XCTAssertEqual(found.logitsSide, 4)
    XCTAssertEqual(runner.labels, [1, 2, 3])
    XCTAssertGreaterThan(found.timings.post, .zero)
  }

  func testWithoutAPictureThereIsNoAnswer() async throws {
    let session = try await session(FixtureRunner())
    await assertThrows(.noImage) { _ = try await session.segment(points: [.init(x: 1, y: 1)]) }
  }

  func testPromptsOutsideOfThePictureAreRefused() async throws {
    let session = try await session(FixtureRunner())
    try await session.setImage(picture(0))
    for point in [(-0.1, 1.0), (1, 16.1), (.nan, 1), (.infinity, 1)] {
      await assertInvalidPrompt { _ = try await session.segment(points: [.init(x: point.0, y: point.1)]) }
    }
    for box in [(3.0, 1.0, 3.0, 5.0), (1, 5, 2, 4), (0, 0, 17, 4)] {
      await assertInvalidPrompt {
        _ = try await session.segment(box: .init(left: box.0, top: box.1, right: box.2, bottom: box.3))
      }
    }
    await assertInvalidPrompt { _ = try await session.segment(points: [.init(x: 1, y: 1, label: .boxTopLeft)]) }
    await assertInvalidPrompt { _ = try await session.segment() }
  }

  func testARuntimesWordsComeThrough() async throws {
    let runner = FixtureRunner()
    runner.before = { step in if step == "open" { throw SegmentationError.loadFailed("no memory") } }
    await assertThrows(.loadFailed("no memory")) { _ = try await self.session(runner) }
  }

  func testAnEncoderThatFailsLeavesNoPicture() async throws {
    let runner = FixtureRunner()
    let session = try await session(runner)
    try await session.setImage(picture(1))
    runner.before = { step in if step == "encode" { throw SegmentationError.runFailed("hot") } }
    let next = try picture(2)
    await assertThrows(.runFailed("hot")) { try await session.setImage(next) }
    await assertThrows(.noImage) { _ = try await session.segment(points: [.init(x: 1, y: 1)]) }
  }

  func testACancelledTaskChangesNothing() async throws {
    let runner = FixtureRunner()
    let session = try await session(runner)
    try await session.setImage(picture(1))
    let next = try picture(9)
    let task = Task {
      while !Task.isCancelled { await Task.yield() }
      try await session.setImage(next)
    }
    task.cancel()
    do {
      _ = try await task.value
      XCTFail("was to be cancelled")
    } catch {
      XCTAssertTrue(error is CancellationError)
    }
    let found = try await session.segment(points: [.init(x: 1, y: 1)])
    XCTAssertEqual(found.score, 3)  // the first picture's shade and the mask's number
  }

  func testAPromptThatIsCancelledWhileTheDecoderRunsEndsThere() async throws {
    let runner = FixtureRunner()
    let session = try await session(runner)
    try await session.setImage(picture(1))
    let started = DispatchSemaphore(value: 0)
    let goOn = DispatchSemaphore(value: 0)
    runner.before = { step in
      if step == "decode" {
        started.signal()
        goOn.wait()
      }
    }
    let task = Task { try await session.segment(points: [.init(x: 1, y: 1)]) }
    await wait(for: started)
    task.cancel()
    goOn.signal()
    do {
      _ = try await task.value
      XCTFail("was to be cancelled")
    } catch {
      XCTAssertTrue(error is CancellationError)
    }
  }

  func testAPictureSetWhileAPromptIsAnsweredIsTheNextPromptsPicture() async throws {
    let runner = FixtureRunner()
    let session = try await session(runner)
    try await session.setImage(picture(1))
    let started = DispatchSemaphore(value: 0)
    let goOn = DispatchSemaphore(value: 0)
    runner.before = { step in
      if step == "decode" {
        started.signal()
        goOn.wait()
      }
    }
    let first = Task { try await session.segment(points: [.init(x: 1, y: 1)]) }
    await wait(for: started)
    let next = try picture(50, width: 8, height: 8)
    let setting = Task { try await session.setImage(next) }
    goOn.signal()
    let answer = try await first.value
    XCTAssertEqual(answer.score, 3)
    XCTAssertEqual(answer.mask.width, 16)
    _ = try await setting.value
    goOn.signal()
    let second = try await session.segment(points: [.init(x: 1, y: 1)])
    XCTAssertEqual(second.score, 52)
    XCTAssertEqual(second.mask.width, 8)
  }

  func testManyTasksAtOnceAreServedOneAfterAnother() async throws {
    let runner = FixtureRunner()
    let session = try await session(runner)
    try await session.setImage(picture(1))
    let inside = Counter()
    runner.before = { _ in
      inside.enter()
      usleep(500)
      inside.leave()
    }
    try await withThrowingTaskGroup(of: Void.self) { group in
      for shade in UInt8(2)..<22 {
        let picture = try picture(shade)
        group.addTask { try await session.setImage(picture) }
        group.addTask { _ = try await session.segment(points: [.init(x: 1, y: 1)]) }
      }
      try await group.waitForAll()
    }
    XCTAssertEqual(inside.most, 1)
  }

  private func wait(for semaphore: DispatchSemaphore) async {
    await withCheckedContinuation { continuation in
      DispatchQueue.global().async {
        semaphore.wait()
        continuation.resume()
      }
    }
  }

  private func assertThrows(_ expected: SegmentationError, _ body: () async throws -> Void) async {
    do {
      try await body()
      XCTFail("was to fail")
    } catch {
      XCTAssertEqual(error as? SegmentationError, expected)
    }
  }

  private func assertInvalidPrompt(_ body: () async throws -> Void) async {
    do {
      try await body()
      XCTFail("was to fail")
    } catch SegmentationError.invalidPrompt {
    } catch {
      XCTFail("\(error)")
    }
  }
}

private final class Counter: @unchecked Sendable {
  private let lock = NSLock()
  private var now = 0
  private(set) var most = 0

  func enter() {
    lock.lock()
    now += 1
    most = max(most, now)
    lock.unlock()
  }

  func leave() {
    lock.lock()
    now -= 1
    lock.unlock()
  }
}
