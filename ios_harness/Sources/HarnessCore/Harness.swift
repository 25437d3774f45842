import EdgeSAMKit
import Foundation

/// Runs jobs, one at a time, each on a thread of its own; what becomes of a job is in its kept stream.
final class Harness: @unchecked Sendable {
  private let storage: Storage
  private let runtimes: Runtimes
  private let probe: Probe
  private weak var observer: JobObserver?
  private let lock = NSLock()
  private var running: RunningJob?  // the last one, over or not; with `lock`
  private let jobs = DispatchGroup()

  init(storage: Storage, runtimes: Runtimes, probe: Probe, observer: JobObserver?) {
    self.storage = storage
    self.runtimes = runtimes
    self.probe = probe
    self.observer = observer
  }

  /// What it says of itself, its device and its runtimes.
  func hello() -> JSONObject {
    [
      "type": "hello", "protocol": .text(Request.version), "harness": .object(probe.harness()),
      "device": .object(probe.device()), "runtimes": .list(runtimes.all.map(\.json)),
    ]
  }

  /// Starts a job that a desktop has sent; where another one is running, it fails at once.
  ///
  /// - Returns: its stream.
  /// - Throws: `Fault` `bad-line`: it was run before.
  func start(_ job: JobRequest) throws -> Kept {
    lock.lock()
    defer { lock.unlock() }
    return try begin(job, remembers: true)
  }

  /// As ``start(_:)``, and remembers the job for ``again(seconds:)``; with `lock`.
  private func begin(_ job: JobRequest, remembers: Bool) throws -> Kept {
    let kept = try Kept.create(storage.kept(job.id), job: job.id)
    let run = RunningJob(id: job.id, kept: kept)
    if let before = running, !before.isOver {
      tell(run, nil) { _ in throw Fault("busy", "another job is running") }
      return kept
    }
    running = run
    if remembers {
      // Without it `again` has nothing to run, which is no reason to measure nothing now.
      try? JSONText.of(job.source).write(toFile: storage.lastJob, atomically: true, encoding: .utf8)
    }
    jobs.enter()
    let thread = Thread { [self] in
      tell(run, observer) { events in
        try JobRun(
          job, storage: storage, runtimes: runtimes, probe: probe, events: events, isCancelled: { run.isCancelled }
        ).run()
      }
      jobs.leave()
    }
    thread.name = "job"
    thread.stackSize = 8 << 20  // runtimes compile their graphs on it
    thread.qualityOfService = .userInteractive  // on the fast cores, as in an app that segments
    thread.start()
    return kept
  }

  /// Starts the last job that was sent once more, for other seconds and without a desktop.
  ///
  /// - Throws: `Fault` `not-found`: none was sent; `busy`.
  func again(seconds: Double) throws {
    lock.lock()
    defer { lock.unlock() }
    guard let line = FileManager.default.contents(atPath: storage.lastJob) else {
      throw Fault("not-found", "no desktop has sent a job yet", hint: "measure once with `edgesam-mobile bench`")
    }
    let job = try JobRequest(Fields(try JSONReader.object(Array(line)), "job")).again(seconds: seconds)
    guard running?.isOver ?? true else {
      throw Fault("busy", "another job is running", hint: "wait until it is over")
    }
    _ = try begin(job, remembers: false)
  }

  /// The kept stream of a job, running or not.
  ///
  /// - Throws: `Fault` `not-found`.
  func kept(_ job: String) throws -> Kept {
    lock.lock()
    defer { lock.unlock() }
    if let running, running.id == job {
      return running.kept
    }
    let path = storage.kept(job)
    guard Storage.status(path) != nil else {
      throw Fault("not-found", "nothing is kept of job \(job)")
    }
    return Kept(finishedAt: path)
  }

  /// Ends the running job early.
  ///
  /// - Throws: `Fault` `not-found`: it does not run.
  func cancel(_ job: String) throws {
    lock.lock()
    defer { lock.unlock() }
    guard let running, running.id == job, !running.isOver else {
      throw Fault("not-found", "job \(job) does not run")
    }
    running.cancel()
  }

  /// Ends whatever runs, and waits for it.
  func stop() {
    lock.lock()
    running?.cancel()
    lock.unlock()
    jobs.wait()
  }

  /// A job's whole stream around what happens in it.
  private func tell(_ run: RunningJob, _ observer: JobObserver?, _ work: (Events) throws -> String) {
    let events = Events(job: run.id, kept: run.kept, observer: observer)
    defer {
      run.finish()
      run.kept.finish()
    }
    do {
      try events.send(hello())
      let status = try outcome(events, work)
      run.finish()  // before anybody can read so: the next job may come at once
      try events.end(status)
    } catch {
      // Nothing can be kept any more: `Kept` tells whoever reads.
    }
  }

  private func outcome(_ events: Events, _ work: (Events) throws -> String) throws -> String {
    do {
      return try work(events)
    } catch is JobRun.Cancelled {
      return "cancelled"
    } catch {
      let fault = Fault(error)
      try events.send([
        "type": "error", "code": .text(fault.code), "message": .text(fault.message), "hint": JSON(fault.hint),
      ])
      return "failed"
    }
  }
}

/// A job that was started, as several threads see it.
final class RunningJob: @unchecked Sendable {
  let id: String
  let kept: Kept
  private let over = Flag()
  private let wished = Flag()

  init(id: String, kept: Kept) {
    self.id = id
    self.kept = kept
  }

  /// Whether the next job may come.
  var isOver: Bool {
    over.isSet
  }

  /// Whether somebody wants it to end early.
  var isCancelled: Bool {
    wished.isSet
  }

  func finish() {
    over.set()
  }

  func cancel() {
    wished.set()
  }
}

/// Something that happens once, seen by several threads.
final class Flag: @unchecked Sendable {
  private let lock = NSLock()
  private var value = false

  var isSet: Bool {
    lock.lock()
    defer { lock.unlock() }
    return value
  }

  func set() {
    lock.lock()
    defer { lock.unlock() }
    value = true
  }
}
