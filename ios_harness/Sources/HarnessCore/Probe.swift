/// What a device tells of itself.
///
/// Keys are the protocol's; what it does not tell is null or absent.
public protocol Probe: Sendable {
  /// The part `harness` of `hello`: `name`, `version`, `build`, `debugger`.
  func harness() -> JSONObject

  /// The part `device` of `hello`.
  func device() -> JSONObject

  /// The fields of `state` but for its time. May take milliseconds: it is never called within what is timed.
  func state() -> JSONObject

  /// A monotonic clock in nanoseconds.
  func nanos() -> UInt64

  /// Waits.
  ///
  /// - Parameter seconds: how long.
  func sleep(_ seconds: Double)
}
