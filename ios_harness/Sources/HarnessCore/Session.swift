import Foundation

/// One desktop's conversation with the harness: requests in, events out.
final class Session: @unchecked Sendable {
  private static let closing = ["bad-line", "too-large", "unknown-version", "busy"]

  private let harness: Harness
  private let storage: Storage
  private let socket: Socket
  private let idle: Double
  private let isStopped: () -> Bool
  private let over = Flag()
  private let senders = DispatchGroup()
  private let writing = NSLock()
  private var seq = 0  // with `writing`
  private var upload: Upload?  // of the session's own thread

  /// - Parameters:
  ///   - idle: seconds that a desktop may say nothing, outside a job.
  ///   - isStopped: whether the server ends.
  init(_ socket: Socket, harness: Harness, storage: Storage, idle: Double, isStopped: @escaping () -> Bool) {
    self.socket = socket
    self.harness = harness
    self.storage = storage
    self.idle = idle
    self.isStopped = isStopped
  }

  /// Turns a desktop away at the door.
  static func refuse(_ socket: Socket) {
    let error: JSONObject = [
      "type": "error", "seq": 0, "code": "busy", "message": "another session is running",
      "hint": "wait until it is over",
    ]
    try? socket.send(Array("\(JSONText.of(error))\n".utf8)[...]) { true }
    socket.hangUp()
  }

  /// Serves until one side has enough.
  func serve() {
    do {
      try say(harness.hello())
      try listen()
    } catch let fault as Fault {
      try? say(fault)
    } catch {
      // The desktop has left.
    }
    over.set()
    senders.wait()
    socket.hangUp()
  }

  private func goesOn() -> Bool {
    !over.isSet && !isStopped()
  }

  private func listen() throws {
    var lines = Lines()
    var heard = DispatchTime.now()
    while goesOn() {
      guard let bytes = try socket.receive() else {
        if senders.wait(timeout: .now()) == .timedOut {
          heard = .now()  // a job's events are on their way
        }
        if seconds(since: heard) > idle {
          return
        }
        continue
      }
      if bytes.isEmpty {
        return
      }
      heard = .now()
      lines.feed(bytes)
      while goesOn(), let line = try lines.next() {
        try take(line)
      }
    }
  }

  /// Answers a line; throws the faults that end a session.
  private func take(_ line: [UInt8]) throws {
    do {
      try answer(try Request.read(line))
    } catch let error as SystemError {
      throw error
    } catch {
      let fault = Fault(error)
      if Session.closing.contains(fault.code) {
        throw fault
      }
      try say(fault)
    }
  }

  private func answer(_ request: Request) throws {
    switch request {
    case .put(let put):
      upload = nil
      let begun = try Upload(put, in: storage)
      try begun.finish()
      upload = begun
      try ready(begun)
    case .chunk(let chunk):
      try take(chunk)
    case .job(let job):
      sendEvents(of: try harness.start(job), from: 0)
    case .cancel(let job):
      try harness.cancel(job)
    case .fetch(let job, let first):
      sendEvents(of: try harness.kept(job), from: first)
    case .bye:
      over.set()
    }
  }

  /// The next bytes of the open upload; what is on its way to one that was refused is dropped.
  private func take(_ chunk: ChunkRequest) throws {
    guard let upload, upload.request.path == chunk.path else {
      return
    }
    do {
      try upload.append(chunk)
      try upload.finish()
    } catch {
      self.upload = nil
      throw error
    }
    if upload.isComplete {
      try ready(upload)
    }
  }

  private func ready(_ upload: Upload) throws {
    try say([
      "type": "ready", "path": .text(upload.request.path), "offset": .whole(upload.offset),
      "complete": .bool(upload.isComplete),
    ])
  }

  /// Sends a kept stream beside whatever else is asked.
  private func sendEvents(of kept: Kept, from first: Int) {
    senders.enter()
    let thread = Thread { [self] in
      do {
        let lost = try kept.send(from: first, while: goesOn) { lines in
          writing.lock()
          defer { writing.unlock() }
          try socket.send(lines, while: goesOn)
        }
        if let lost {
          try say(Fault("job-lost", lost))
        }
      } catch {
        over.set()
      }
      senders.leave()
    }
    thread.name = "sender"
    thread.start()
  }

  private func say(_ fault: Fault) throws {
    try say([
      "type": "error", "code": .text(fault.code), "message": .text(fault.message), "hint": JSON(fault.hint),
    ])
  }

  /// Sends an event of the session's own stream.
  private func say(_ event: JSONObject) throws {
    writing.lock()
    defer { writing.unlock() }
    var numbered: JSONObject = ["type": event["type"] ?? .null, "seq": .whole(seq)]
    numbered.merge(event)
    seq += 1
    // Also where it is over: why is the last thing to say.
    try socket.send(Array("\(JSONText.of(numbered))\n".utf8)[...]) { !isStopped() }
  }
}
