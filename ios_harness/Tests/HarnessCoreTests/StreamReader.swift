import Foundation

@testable import HarnessCore

/// Reads events as the protocol wants a desktop to: every good one, then what is wrong.
struct StreamReader {
  static let status = Array("INSTRUMENTATION_STATUS: event=".utf8)
  private static let known = ["hello", "ready", "phase", "sample", "state", "check", "result", "error", "end"]

  private struct Sequence {
    var next = 0
    var counts: [String: Int] = [:]
    var job: String?
    var status: String?
  }

  private let isDuplex: Bool
  private var sequences: [String: Sequence] = [:]  // the session's, or the only one, at ""
  private(set) var events: [String: Int] = [:]
  private(set) var skipped: [String: Int] = [:]
  private(set) var code: String?

  init(duplex: Bool = false) {
    isDuplex = duplex
  }

  mutating func take(_ line: [UInt8]) {
    guard code == nil else {
      return
    }
    do {
      try take(try JSONReader.object(line))
    } catch {
      code = Fault(error).code
    }
  }

  var ending: String {
    if code != nil {
      return "damaged"
    }
    let isOpen = sequences.contains { $0.value.status == nil && !(isDuplex && $0.key.isEmpty) }
    return isOpen || sequences.isEmpty ? "truncated" : "whole"
  }

  /// What each job's end says.
  var jobs: [String: String?] {
    var jobs: [String: String?] = [:]
    for sequence in sequences.values {
      if let job = sequence.job {
        jobs.updateValue(sequence.status, forKey: job)
      }
    }
    return jobs
  }

  private mutating func take(_ content: JSONObject) throws {
    let event = Fields(content, "event")
    let type = try event.text("type")
    if let spoken = content["protocol"], spoken != .text(Request.version) {
      throw Fault("unknown-version", "another")
    }
    _ = try event.text("type", "a word", where: Names.isWord)
    let seq = try event.whole("seq", 0...Int.max)
    let job = event.has("job") ? try event.job() : nil
    try StreamReader.check(event, type, job)
    let key = isDuplex ? job ?? "" : ""
    var sequence = sequences[key] ?? Sequence()
    if let job, let before = sequence.job, job != before {
      throw Fault("bad-line", "an event of another job")
    }
    guard seq == sequence.next else {
      throw Fault("gap", "seq \(seq)")
    }
    if seq == 0, type != "hello", !(type == "error" && isDuplex && job == nil) {
      throw Fault("no-hello", type)
    }
    guard sequence.status == nil else {
      throw Fault("bad-line", "something after end")
    }
    if type == "end" {
      let counts = content["counts"]?.object ?? [:]
      let said = Dictionary(uniqueKeysWithValues: counts.names.map { ($0, counts[$0]?.whole ?? -1) })
      guard said.filter({ $0.value != 0 }) == sequence.counts else {
        throw Fault("counts", "end says \(said)")
      }
      sequence.status = try event.text("status")
    }
    sequence.job = job ?? sequence.job
    sequence.next += 1
    sequence.counts[type, default: 0] += 1
    sequences[key] = sequence
    if StreamReader.known.contains(type) {
      events[type, default: 0] += 1
    } else {
      skipped[type, default: 0] += 1
    }
  }

  private static func check(_ event: Fields, _ type: String, _ job: String?) throws {
    if known.contains(type), !["hello", "ready", "error"].contains(type), job == nil {
      throw event.wrong("job", "an id")
    }
    let any = 0...Int.max
    switch type {
    case "hello":
      _ = try event.object("harness").text("name")
      _ = try event.object("harness").flag("debugger")
      _ = try event.object("device").text("class", "a class") {
        ["android", "ios", "emulator", "host", "simulated"].contains($0)
      }
      _ = try event.objects("runtimes", any)
    case "ready":
      _ = (try event.path("path"), try event.whole("offset", 0...2 << 30), try event.flag("complete"))
    case "phase":
      _ = try event.text("name", "a phase") {
        ["gate", "check", "load", "first", "warm-up", "measure"].contains($0)
      }
      _ = try event.whole("at_ns", any)
    case "sample":
      _ = try event.text("stage", "a word", where: Names.isWord)
      _ = (try event.whole("round", any), try event.whole("ns", any), try event.whole("at_ns", any))
    case "state":
      _ = try event.whole("at_ns", any)
    case "check":
      for mask in try event.objects("masks", any) {
        _ = (try mask.number("iou", 0...1), try mask.flag("best_same"))
      }
      _ = (try event.number("least_iou", 0...1), try event.flag("passed"))
    case "result":
      let warmUp = try event.object("warm_up")
      _ = (try warmUp.flag("stable"), try warmUp.whole("rounds", any), try event.whole("rounds", any))
    case "error":
      _ = (try event.text("code", "a word", where: Names.isWord), try event.text("message"))
    case "end":
      _ = try event.text("status", "a status") { ["complete", "failed", "cancelled"].contains($0) }
      _ = try event.object("counts")
    default:
      break
    }
  }
}
