import Foundation

/// A job's kept stream: written by the job, read by whoever sends it.
///
/// Lines are numbered as the events are.
final class Kept: @unchecked Sendable {
  private static let slice = 0.05  // seconds between two looks at whether it is over
  private static let piece = 1 << 16

  private let path: String
  private let more = NSCondition()
  // All below are used with `more` locked.
  private var file: Int32
  private var isFinished: Bool
  private var failure: String?

  /// The stream of a job that is over, or that nobody runs any more.
  init(finishedAt path: String) {
    self.path = path
    file = -1
    isFinished = true
  }

  /// A stream that is about to be written to an open file.
  init(path: String, file: Int32) {
    self.path = path
    self.file = file
    isFinished = false
  }

  /// The stream of a new job.
  ///
  /// - Throws: `Fault` `bad-line`: the job was run before; `no-space`.
  static func create(_ path: String, job: String) throws -> Kept {
    let file = open(path, O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0o644)
    guard file >= 0 else {
      if errno == EEXIST {
        throw Fault("bad-line", "job.job: \(job) was used before")
      }
      throw SystemError().fault("internal", "the events of \(job) cannot be kept")
    }
    return Kept(path: path, file: file)
  }

  /// Keeps a line; it is with the system before this returns.
  ///
  /// - Throws: `Fault` `no-space`, `internal`; nothing more is kept then.
  func append(_ line: String) throws {
    more.lock()
    defer { more.unlock() }
    guard failure == nil else {
      throw Fault("internal", "nothing more is kept")
    }
    let before = lseek(file, 0, SEEK_END)
    do {
      try writeAll(Array((line + "\n").utf8), to: file)
    } catch let error as SystemError {
      failure = error.words
      ftruncate(file, max(0, before))  // so that every line is whole
      throw error.fault("internal", "the events cannot be kept")
    }
    more.broadcast()
  }

  /// Nothing more comes.
  func finish() {
    more.lock()
    defer { more.unlock() }
    isFinished = true
    if file >= 0 {
      close(file)
      file = -1
    }
    more.broadcast()
  }

  /// Gives the whole lines from `first` on, several together, until the job is over or `goesOn` says no.
  ///
  /// - Returns: why the stream ends without `end`, if it does.
  /// - Throws: what `send` throws; `Fault` `not-found` where the file is gone.
  func send(from first: Int, while goesOn: () -> Bool, _ send: (ArraySlice<UInt8>) throws -> Void) throws -> String? {
    let reading = open(path, O_RDONLY | O_CLOEXEC)
    guard reading >= 0 else {
      throw SystemError().fault("not-found", "what was kept is gone")
    }
    defer { close(reading) }
    var unsent = Unsent(first: first)
    var piece = [UInt8](repeating: 0, count: Kept.piece)
    while goesOn() {
      let isLast = finished()  // before reading: what was written before it is then read
      var count = read(reading, &piece, piece.count)
      while count > 0 {
        let lines = unsent.take(piece[..<count])
        if !lines.isEmpty {
          try send(lines)
        }
        guard goesOn() else {
          return nil
        }
        count = read(reading, &piece, piece.count)
      }
      if isLast {
        return unsent.hasEnd ? nil : why()
      }
      wait()
    }
    return nil
  }

  private func finished() -> Bool {
    more.lock()
    defer { more.unlock() }
    return isFinished
  }

  private func why() -> String {
    more.lock()
    defer { more.unlock() }
    return failure.map { "its events could not be kept: \($0)" }
      ?? "it broke off: the harness was killed, or the device restarted"
  }

  private func wait() {
    more.lock()
    defer { more.unlock() }
    if !isFinished {
      _ = more.wait(until: Date(timeIntervalSinceNow: Kept.slice))
    }
  }
}

/// Whole lines out of the pieces of a kept stream.
private struct Unsent {
  let first: Int
  private var number = 0
  private var rest: [UInt8] = []
  private var last: [UInt8] = []

  init(first: Int) {
    self.first = first
  }

  /// Whether the last whole line is the event `end`.
  var hasEnd: Bool {
    (try? JSONReader.object(last))?["type"] == .text("end")
  }

  /// The whole lines that a piece completes, from `first` on.
  mutating func take(_ piece: ArraySlice<UInt8>) -> ArraySlice<UInt8> {
    rest += piece
    var begin = rest.startIndex
    var wanted = rest.startIndex
    while let newline = rest[begin...].firstIndex(of: UInt8(ascii: "\n")) {
      last = Array(rest[begin...newline])
      begin = newline + 1
      number += 1
      if number <= first {
        wanted = begin
      }
    }
    let lines = rest[wanted..<begin]
    rest = Array(rest[begin...])
    return lines
  }
}
