import Foundation
import MadeUp
import XCTest

@testable import HarnessCore

/// A job on made-up models, as a desktop sends it.
enum MadeUpJob {
  static let size = 16
  private static let emptySHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

  /// The line; every (a, b) of the changes replaces a text in it. Quotes are written as '.
  static func line(_ changes: [(String, String)] = []) -> [UInt8] {
    let low = size / 4
    let embedding = tensor("image_embeddings", "1,4")
    var line =
      "{'protocol':'edgesam.harness/1','type':'job','job':'job-1','label':'a','format':'made-up','runtime':null,"
      + "'delegate':'cpu','threads':null,'encoder':{'path':'models/encoder','sha256':'\(emptySHA256)','inputs':["
      + tensor("image", "1,\(size),\(size),3", layout: "NHWC") + "],'outputs':[" + embedding
      + "]},'decoder':{'path':'models/decoder','sha256':'\(emptySHA256)','inputs':[" + embedding + ","
      + tensor("point_coords", "1,3,2") + "," + tensor("point_labels", "1,3") + "],'outputs':["
      + tensor("masks", "1,4,\(low),\(low)") + "," + tensor("best_mask", "1,1,\(low),\(low)")
      + "]},'picture':{'size':\(size),'pad_rgb':[123.675,116.28,103.53]},"
      + "'prompt':{'slots':3,'prompts_per_call':1,'mask_input':false},"
      + "'mask':{'low_resolution':\(low),'threshold':0.0,'score':'iou','point_masks':3},"
      + "'frame':{'image':'inputs/picture','points':[[3.0,4.5],[1,2]],'labels':[1,0]},"
      + "'golden':[{'image':'inputs/picture','points':[[3,4]],'labels':[1],'mask':'inputs/mask','best':2}],"
      + "'least_iou':0.9,'warm_up':{'rounds':6,'seconds':60,'window':2,'tolerance':0.5},"
      + "'measure':{'seconds':0,'rounds':4},'state_every':3600,'thermal_gate':null,'seed':7}"
    for (old, new) in changes {
      precondition(line.contains(old), "nothing to change: \(old)")
      line = line.replacingOccurrences(of: old, with: new)
    }
    return Array(line.replacingOccurrences(of: "'", with: "\"").utf8) + [10]
  }

  /// The job, read.
  static func read(_ changes: [(String, String)] = []) throws -> JobRequest {
    guard case .job(let job) = try Request.read(line(changes)) else {
      throw Fault("unknown-type", "no job")
    }
    return job
  }

  /// The files that the job names.
  static func writeFiles(_ folder: URL) throws {
    for name in ["models", "inputs"] {
      try FileManager.default.createDirectory(
        at: folder.appendingPathComponent(name), withIntermediateDirectories: true)
    }
    try Data().write(to: folder.appendingPathComponent("models/encoder"))
    try Data().write(to: folder.appendingPathComponent("models/decoder"))
    try (Data("P6 20 10 255\n".utf8) + Data(count: 600)).write(to: folder.appendingPathComponent("inputs/picture"))
    let mask = Data("P4\n20 10\n".utf8) + Data((0..<10).flatMap { _ in [0xff, 0xff, 0xf0] as [UInt8] })
    try mask.write(to: folder.appendingPathComponent("inputs/mask"))
  }

  private static func tensor(_ name: String, _ shape: String, layout: String = "X") -> String {
    "{'name':'\(name)','shape':[\(shape)],'dtype':'float32','layout':'\(layout)','meaning':'m'}"
  }
}

/// A clock that goes on by a millisecond whenever it is read, and a device that cools down after some readings.
final class MadeUpProbe: Probe, @unchecked Sendable {
  var thermal = "nominal"
  var coolsAfter = Int.max
  private var now: UInt64 = 1000

  func harness() -> JSONObject { ["name": "test", "version": "0", "build": "debug", "debugger": false] }

  func device() -> JSONObject { ["class": "host"] }

  func state() -> JSONObject {
    coolsAfter -= 1
    return ["thermal": .text(coolsAfter >= 0 ? thermal : "nominal")]
  }

  func nanos() -> UInt64 {
    now += 1_000_000
    return now
  }

  func sleep(_ seconds: Double) {
    now += UInt64(seconds * 1e9)
  }
}

/// A folder that goes with its test.
class FolderTestCase: XCTestCase {
  private(set) var folder = URL(fileURLWithPath: "/")

  override func setUpWithError() throws {
    folder = FileManager.default.temporaryDirectory.appendingPathComponent("harness-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
  }

  override func tearDownWithError() throws {
    try FileManager.default.removeItem(at: folder)
  }

  /// Everything below the folder, by path.
  func files() -> [String] {
    let all = FileManager.default.enumerator(atPath: folder.path)?.compactMap { $0 as? String } ?? []
    return all.filter { Storage.status("\(folder.path)/\($0)").map { $0.st_mode & S_IFMT } == S_IFREG }.sorted()
  }
}

/// Whole lines, with their newlines; one without is left out.
func lines(_ bytes: [UInt8]) -> [[UInt8]] {
  bytes.split(separator: 10, omittingEmptySubsequences: false).dropLast().map { Array($0) + [10] }
}

/// The code of the fault that something throws; nil where it throws none.
func code(_ work: () throws -> Void) -> String? {
  do {
    try work()
    return nil
  } catch {
    return Fault(error).code
  }
}
