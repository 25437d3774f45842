import Foundation
import HarnessCore

/// What a screen shows of a job that runs: made of the job's own events.
public struct LiveRun: Sendable, Equatable {
  /// The longest that a frame may take for 30 frames a second, in milliseconds.
  public static let limit = 1000.0 / 30
  private static let most = 300
  private static let window = 30
  private var first: [Double] = []  // of the frames that are measured

  /// The job's id; nil before the first one.
  public private(set) var job: String?
  /// The phase that it is in.
  public private(set) var phase = ""
  /// Milliseconds of the last frames, warm-up included.
  public private(set) var frames: [Double] = []
  /// Seconds of the frames that are measured, warm-up left out.
  public private(set) var measured = 0.0
  /// The thermal state, as the protocol names it; nil where the device does not tell.
  public private(set) var thermal: String?
  /// Whether the device saves power.
  public private(set) var lowPower = false
  /// How it ended: `complete`, `failed`, `cancelled`; nil while it runs.
  public private(set) var ended: String?
  /// Error, failed check or the runner's note: the last that came.
  public private(set) var remark: String?

  /// Nothing has run yet.
  public init() {}

  /// Frames a second by the median of the last frames; nil before there is one.
  public var framesPerSecond: Double? {
    Self.median(frames.suffix(Self.window)).map { 1000 / $0 }
  }

  /// Milliseconds that nine of ten of the last frames do not exceed: targets are judged by it. Nil before there is one.
  public var p90: Double? {
    Statistics.percentile(0.9, of: frames)
  }

  /// How many times as long the last frames take as the first ones that were measured, by their medians: what is left
  /// when a phone has become hot. Nil before there are enough for both.
  public var slowdown: Double? {
    guard measured > 0, first.count == Self.window, let before = Self.median(first[...]) else { return nil }
    return Self.median(frames.suffix(Self.window)).map { $0 / before }
  }

  /// Whether a job runs.
  public var isRunning: Bool { job != nil && ended == nil }

  private static func median(_ times: ArraySlice<Double>) -> Double? {
    Statistics.percentile(0.5, of: times).flatMap { $0 > 0 ? $0 : nil }
  }

  /// Takes the next event of a job's stream.
  public mutating func take(_ event: JSONObject) {
    if let id = event["job"]?.text, id != job {
      self = LiveRun()
      job = id
    }
    switch event["type"]?.text {
    case "phase": phase = event["name"]?.text ?? ""
    case "sample":
      guard let stage = event["stage"]?.text, stage == "frame" || stage == "warm-frame",
        let nanoseconds = event["ns"]?.whole
      else { return }
      frames.append(Double(nanoseconds) / 1e6)
      if stage == "frame" {
        measured += Double(nanoseconds) / 1e9
        if first.count < Self.window { first.append(Double(nanoseconds) / 1e6) }
      }
      frames.removeFirst(max(0, frames.count - Self.most))
    case "state":
      thermal = event["thermal"]?.text
      lowPower = event["low_power"]?.bool ?? false
    case "check" where event["passed"]?.bool == false:
      remark = "the masks are not PyTorch's: nothing is timed"
    case "error": remark = event["message"]?.text
    case "result": remark = event["note"]?.text
    case "end": ended = event["status"]?.text
    default: break
    }
  }

  /// Why what is measured now would not count; empty where nothing speaks against it.
  ///
  /// - Parameters:
  ///   - harness: the probe's part of `hello`.
  ///   - savesPower: whether the device does, asked now: before a job has told its first state.
  public func spoilers(harness: JSONObject, savesPower: Bool = false) -> [String] {
    var found: [String] = []
    if harness["debugger"]?.bool == true { found.append("A debugger is attached: start the app from its icon.") }
    if harness["build"]?.text == "debug" { found.append("This is a debug build: build it as Release.") }
    if lowPower || savesPower { found.append("Low Power Mode is on: switch it off in Settings, Battery.") }
    if thermal == "serious" || thermal == "critical" { found.append("The phone is hot: let it cool down.") }
    return found
  }
}
