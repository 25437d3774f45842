/// When a warm-up is over: the medians of the last two windows differ by less than a tolerance, or a limit is met.
struct WarmUp {
  /// Rounds and seconds at most, frames a window, and the relative difference of medians.
  struct Limits {
    let rounds: Int
    let seconds: Double
    let window: Int
    let tolerance: Double
  }

  private let limits: Limits
  private let begun: UInt64
  private var times: [UInt64] = []

  /// - Parameters:
  ///   - limits: when it is over.
  ///   - begun: the time now, in nanoseconds.
  init(_ limits: Limits, begun: UInt64) {
    self.limits = limits
    self.begun = begun
  }

  /// How many frames there were.
  var rounds: Int {
    times.count
  }

  /// Whether the times have become stable.
  var isStable: Bool {
    guard times.count >= 2 * limits.window,
      let before = WarmUp.median(times.suffix(2 * limits.window).prefix(limits.window)),
      let last = WarmUp.median(times.suffix(limits.window))
    else {
      return false
    }
    return abs(last - before) < limits.tolerance * before
  }

  /// Counts a frame that took so many nanoseconds.
  mutating func took(_ nanos: UInt64) {
    times.append(nanos)
  }

  /// Whether it is over, at a time in nanoseconds.
  func isOver(at now: UInt64) -> Bool {
    isStable || times.count >= limits.rounds || Double(now - begun) >= limits.seconds * 1e9
  }

  private static func median(_ times: ArraySlice<UInt64>) -> Double? {
    Statistics.percentile(0.5, of: times.map(Double.init))
  }
}

extension WarmUp.Limits {
  /// - Throws: `Fault` `bad-line` with the field's name.
  init(_ fields: Fields) throws {
    self.init(
      rounds: try fields.whole("rounds", 0...Int.max),
      seconds: try fields.number("seconds", 0...24 * 3600),
      window: try fields.whole("window", 1...1 << 20),
      tolerance: try fields.number("tolerance", 0...JobRequest.far))
  }
}
