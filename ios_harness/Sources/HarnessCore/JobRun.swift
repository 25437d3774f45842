import EdgeSAMKit
import Foundation

/// One job from its gate to its result.
///
/// The check comes before anything is timed.
final class JobRun {
  private static let gateEvery = 1.0  // seconds
  private static let kernelWarmUp = 3
  private static let mostPlaced = 5000  // operations that fit into a line

  /// Thrown between frames when somebody wants the job to end early.
  struct Cancelled: Error {}

  private let job: JobRequest
  private let storage: Storage
  private let runtimes: Runtimes
  private let probe: Probe
  private let events: Events
  private let isCancelled: () -> Bool
  private let kernel = ReferenceKernel()
  private var lastState: UInt64 = 0

  init(
    _ job: JobRequest, storage: Storage, runtimes: Runtimes, probe: Probe, events: Events,
    isCancelled: @escaping () -> Bool
  ) {
    self.job = job
    self.storage = storage
    self.runtimes = runtimes
    self.probe = probe
    self.events = events
    self.isCancelled = isCancelled
  }

  /// Runs the job.
  ///
  /// - Returns: the status for `end`: `complete`, or `failed` by the check.
  /// - Throws: `Fault`, `SegmentationError`, `Cancelled`.
  func run() throws -> String {
    let encoder = try storage.model(job.encoder)
    let decoder = try storage.model(job.decoder)
    let picture = try storage.picture(job.frame.image)
    // Refuses what the harness does not have before anybody waits for the gate.
    try runner().close()
    try gate()
    try phase("check")
    guard try check(encoder, decoder) else {
      return "failed"
    }
    try phase("load")
    for _ in 0..<JobRun.kernelWarmUp {
      _ = kernel.run()
    }
    try timeKernel(0)
    let runner = try load(encoder, decoder)
    defer { runner.close() }
    try measure(runner, picture)
    return "complete"
  }

  private func runner() throws -> GraphRunner {
    try runtimes.runner(format: job.format, runtime: job.runtime, delegate: job.delegate, threads: job.threads)
  }

  private func gate() throws {
    try phase("gate")
    let began = probe.nanos()
    while true {
      let state = try state()
      guard let gate = job.gate, let shut = gate.shut(by: state) else {
        return
      }
      guard Double(probe.nanos() - began) < gate.wait * 1e9 else {
        throw Fault("hot", "still \(shut) after \(gate.wait) s", hint: "let the device cool down")
      }
      try stopIfCancelled()
      probe.sleep(JobRun.gateEvery)
    }
  }

  private func check(_ encoder: URL, _ decoder: URL) throws -> Bool {
    var masks: [JSON] = []
    var passed = true
    let runner = try runner()
    defer { runner.close() }
    let pipeline = try Pipeline(model: job.model, runner: runner)
    try pipeline.load(encoder: encoder, decoder: decoder, cache: try storage.emptyCache())
    for golden in job.golden {
      try stopIfCancelled()
      let expected = try storage.mask(golden.mask)
      pipeline.use(try storage.picture(golden.prompted.image))
      pipeline.pre()
      try pipeline.encode()
      try pipeline.decode(golden.prompted.prompt)
      let iou = pipeline.post().iou(expected)
      passed = passed && iou >= job.leastIoU
      masks.append(["iou": .number(iou), "best_same": .bool(pipeline.best() == golden.best)])
      try stateIfDue()
    }
    try events.send([
      "type": "check", "masks": .list(masks), "least_iou": .number(job.leastIoU), "passed": .bool(passed),
    ])
    return passed
  }

  /// Loads with an empty cache, and again where the runtime has put something into it.
  private func load(_ encoder: URL, _ decoder: URL) throws -> GraphRunner {
    let cache = try storage.emptyCache()
    var runner = try loadTimed("load-cold", encoder, decoder, cache)
    if try !FileManager.default.contentsOfDirectory(atPath: cache.path).isEmpty {
      runner.close()
      runner = try loadTimed("load-cached", encoder, decoder, cache)
    }
    try events.flush()
    return runner
  }

  private func loadTimed(_ stage: String, _ encoder: URL, _ decoder: URL, _ cache: URL) throws -> GraphRunner {
    let runner = try runner()
    do {
      let began = probe.nanos()
      try runner.open(encoder: encoder, decoder: decoder, model: job.model, cache: cache)
      events.sample(stage, 0, began, probe.nanos())
      return runner
    } catch {
      runner.close()
      throw error
    }
  }

  private func measure(_ runner: GraphRunner, _ picture: Picture) throws {
    let pipeline = try Pipeline(model: job.model, runner: runner)
    pipeline.use(picture)
    try phase("first")
    _ = try frame(pipeline, "first-", 0)
    try phase("warm-up")
    var warmUp = WarmUp(job.warmUp, begun: probe.nanos())
    while !warmUp.isOver(at: probe.nanos()) {
      warmUp.took(try frame(pipeline, "warm-", warmUp.rounds))
    }
    try phase("measure")
    var rounds = 0
    let began = probe.nanos()
    while rounds < job.rounds || Double(probe.nanos() - began) < job.seconds * 1e9 {
      _ = try frame(pipeline, "", rounds)
      rounds += 1
    }
    try timeKernel(1)
    try state()
    let placement = runner.placement.prefix(JobRun.mostPlaced).map { placed in
      JSON.object([
        "graph": .text(placed.graph), "operation": .text(placed.operation), "device": .text(placed.device),
        "cost": JSON(placed.cost),
      ])
    }
    try events.send([
      "type": "result", "requested": JSON(job.delegate), "applied": JSON(runner.applied),
      "threads": JSON(runner.threads),
      "warm_up": ["rounds": .whole(warmUp.rounds), "stable": .bool(warmUp.isStable)],
      "rounds": .whole(rounds), "note": JSON(runner.note), "placement": placement.isEmpty ? .null : .list(placement),
    ])
  }

  /// One whole frame, each step timed; what is written and read about it comes after the clock has stopped.
  ///
  /// - Returns: how many nanoseconds it took.
  private func frame(_ pipeline: Pipeline, _ prefix: String, _ round: Int) throws -> UInt64 {
    try stopIfCancelled()
    let began = probe.nanos()
    pipeline.pre()
    let prepared = probe.nanos()
    try pipeline.encode()
    let encoded = probe.nanos()
    try pipeline.decode(job.frame.prompt)
    let decoded = probe.nanos()
    _ = pipeline.post()
    let ended = probe.nanos()
    events.sample(prefix + "pre", round, began, prepared)
    events.sample(prefix + "encode", round, prepared, encoded)
    events.sample(prefix + "decode", round, encoded, decoded)
    events.sample(prefix + "post", round, decoded, ended)
    events.sample(prefix + "frame", round, began, ended)
    try events.flush()
    try stateIfDue()
    return ended - began
  }

  private func timeKernel(_ round: Int) throws {
    let began = probe.nanos()
    let sum = kernel.run()
    let ended = probe.nanos()
    guard sum == ReferenceKernel.checksum else {
      throw Fault("internal", "the reference kernel's checksum is \(sum)")
    }
    events.sample("kernel", round, began, ended)
    try events.flush()
  }

  private func stopIfCancelled() throws {
    if isCancelled() {
      throw Cancelled()
    }
  }

  private func stateIfDue() throws {
    if Double(probe.nanos() - lastState) >= job.stateEvery * 1e9 {
      try state()
    }
  }

  @discardableResult
  private func state() throws -> JSONObject {
    let state = probe.state()
    lastState = probe.nanos()
    var event: JSONObject = ["type": "state", "at_ns": .whole(Int(clamping: lastState))]
    event.merge(state)
    try events.send(event)
    return state
  }

  private func phase(_ name: String) throws {
    try events.send(["type": "phase", "name": .text(name), "at_ns": .whole(Int(clamping: probe.nanos()))])
  }
}
