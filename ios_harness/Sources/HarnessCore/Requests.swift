import Foundation

/// What a desktop sends: the requests of `docs/protocol.md`, checked.
enum Request {
  case put(PutRequest)
  case chunk(ChunkRequest)
  case job(JobRequest)
  case cancel(job: String)
  case fetch(job: String, from: Int)
  case bye

  static let version = "edgesam.harness/1"

  /// A request from one line, with or without its newline.
  ///
  /// - Throws: `Fault` `unknown-version`, `unknown-type`, `bad-line` with the field's name, `bad-path`, `too-large`.
  static func read(_ line: [UInt8]) throws -> Request {
    let object = try JSONReader.object(line)
    guard let type = object["type"]?.text else {
      throw Fault("bad-line", "type: a message has one, and it is text")
    }
    // Before all else: the fields of another version may differ.
    if let spoken = object["protocol"], spoken != .text(version) {
      throw Fault("unknown-version", "protocol: \(spoken.text ?? "no text") instead of \(version)")
    }
    let fields = Fields(object, type)
    switch type {
    case "put": return .put(try PutRequest(fields))
    case "chunk": return .chunk(try ChunkRequest(fields))
    case "job": return .job(try JobRequest(fields))
    case "cancel": return .cancel(job: try fields.job())
    case "fetch": return .fetch(job: try fields.job(), from: try fields.whole("from", 0...Int.max))
    case "bye": return .bye
    default: throw Fault("unknown-type", "no request is of type \(type)")
    }
  }
}

/// A file is to come; the answer says from which byte.
struct PutRequest {
  static let largestFile = 2 << 30

  let path: String
  let bytes: Int
  let sha256: String

  init(_ fields: Fields) throws {
    path = try fields.path("path", where: Names.isStored)
    bytes = try fields.bytes("bytes", most: PutRequest.largestFile)
    sha256 = try fields.sha256("sha256")
  }
}

/// The next bytes of a file.
struct ChunkRequest {
  private static let largest = 256 << 10

  let path: String
  let offset: Int
  let data: Data

  init(_ fields: Fields) throws {
    path = try fields.path("path", where: Names.isStored)
    offset = try fields.bytes("offset", most: PutRequest.largestFile)
    guard let data = Data(base64Encoded: try fields.text("data")) else {
      throw fields.wrong("data", "base64")
    }
    guard data.count <= ChunkRequest.largest else {
      throw Fault("too-large", "chunk.data: \(data.count) bytes; the limit is 256 KiB")
    }
    self.data = data
  }
}
