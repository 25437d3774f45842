import Dispatch
import Foundation
import HarnessCore

/// Follows jobs for a screen, and takes little of the processor from what is timed: a screen that draws every frame's
/// time slows the next frames. Samples are shown a few times a second, everything else at once.
public final class LiveFeed: JobObserver, @unchecked Sendable {
  private let every: Double
  private let show: @Sendable (LiveRun) -> Void
  private let lock = NSLock()
  private var run = LiveRun()  // with `lock`
  private var shown: DispatchTime?  // with `lock`

  /// A feed that has seen nothing yet.
  ///
  /// - Parameters:
  ///   - every: seconds between two times of showing samples.
  ///   - show: takes the run as it is, on the job's thread: it should hand it on and return.
  public init(every: Double = 0.25, show: @escaping @Sendable (LiveRun) -> Void) {
    self.every = every
    self.show = show
  }

  /// Takes a job's next event.
  public func event(_ event: JSONObject) {
    lock.lock()
    defer { lock.unlock() }
    run.take(event)
    let now = DispatchTime.now()
    if event["type"] == "sample", let shown,
      Double(now.uptimeNanoseconds - shown.uptimeNanoseconds) < every * 1e9
    {
      return
    }
    shown = now
    show(run)
  }
}
