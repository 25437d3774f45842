/// Sees a job's events as they are kept, for a live view.
public protocol JobObserver: AnyObject, Sendable {
  /// Takes an event, on the job's thread and never within what is timed. The next frame waits until it returns.
  ///
  /// - Parameter event: the event as it is kept, with `type`, `seq` and `job`.
  func event(_ event: JSONObject)
}

/// A job's stream: numbers its events, counts them and keeps them.
///
/// Used by the job's thread.
final class Events {
  private let job: String
  private let kept: Kept
  private weak var observer: JobObserver?
  private var counts = JSONObject()
  private var waiting: [JSONObject] = []
  private var seq = 0

  init(job: String, kept: Kept, observer: JobObserver?) {
    self.job = job
    self.kept = kept
    self.observer = observer
  }

  /// Keeps an event now, after those that wait.
  ///
  /// - Throws: `Fault` where nothing can be kept.
  func send(_ event: JSONObject) throws {
    waiting.append(event)
    try flush()
  }

  /// Holds a sample until `flush`, so that nothing is written within what is timed.
  func sample(_ stage: String, _ round: Int, _ began: UInt64, _ ended: UInt64) {
    waiting.append([
      "type": "sample", "stage": .text(stage), "round": .whole(round), "ns": .whole(Int(clamping: ended - began)),
      "at_ns": .whole(Int(clamping: ended)),
    ])
  }

  /// Keeps everything that waits.
  func flush() throws {
    let events = waiting
    waiting.removeAll()
    for event in events {
      try write(event)
    }
  }

  /// Keeps the last event.
  func end(_ status: String) throws {
    try flush()
    try write(["type": "end", "status": .text(status), "counts": .object(counts)])
  }

  private func write(_ event: JSONObject) throws {
    let type = event["type"]?.text ?? ""
    var numbered: JSONObject = ["type": .text(type), "seq": .whole(seq), "job": .text(job)]
    numbered.merge(event)
    try kept.append(JSONText.of(numbered))
    seq += 1
    counts[type] = .whole((counts[type]?.whole ?? 0) + 1)
    observer?.event(numbered)
  }
}
