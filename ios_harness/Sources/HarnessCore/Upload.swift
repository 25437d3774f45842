import Foundation

/// A file on its way in: `NAME.part` until it is whole and its hash was checked.
final class Upload {
  /// What was asked for.
  let request: PutRequest
  /// How many bytes are there.
  private(set) var offset = 0
  /// Whether the file has its name.
  private(set) var isComplete = false

  private let target: String
  private var file: Int32 = -1

  private var part: String {
    target + ".part"
  }

  /// Takes up a file, from where it is; one with another hash is removed.
  ///
  /// - Throws: `Fault` `bad-path`, `no-space`.
  init(_ request: PutRequest, in storage: Storage) throws {
    self.request = request
    target = try storage.place(request.path)
    switch Storage.status(target).map({ $0.st_mode & S_IFMT }) {
    case nil:
      break
    case S_IFREG?:
      if try Storage.sha256(target) == request.sha256 {
        isComplete = true
        offset = request.bytes
        return
      }
      guard unlink(target) == 0 else {
        throw SystemError().fault("bad-path", request.path)
      }
    default:
      throw Fault("bad-path", "\(request.path) is no file")
    }
    if let status = Storage.status(part) {
      guard status.st_mode & S_IFMT == S_IFREG else {
        throw Fault("bad-path", "\(request.path).part is no file")
      }
      offset = Int(status.st_size)
    }
    if offset > request.bytes {  // of another attempt with another content
      unlink(part)
      offset = 0
    }
    let missing = request.bytes - offset
    if let free = storage.freeBytes(), missing > free {
      throw Fault(
        "no-space", "\(request.path) needs \(missing) bytes, \(free) are free",
        hint: "free some storage on the device")
    }
  }

  deinit {
    shut()
  }

  /// The next bytes.
  ///
  /// - Throws: `Fault` `bad-line` where they do not follow the ones before, `too-large` where they are too many,
  ///   `no-space`.
  func append(_ chunk: ChunkRequest) throws {
    guard chunk.offset == offset, !isComplete else {
      throw Fault("bad-line", "chunk.offset: \(chunk.offset) where \(offset) was to come")
    }
    guard offset + chunk.data.count <= request.bytes else {
      throw Fault("too-large", "\(request.path) is larger than was said")
    }
    try open()
    do {
      try writeAll(Array(chunk.data), to: file)
    } catch let error as SystemError {
      throw error.fault("bad-path", request.path)
    }
    offset += chunk.data.count
  }

  /// Gives the file its name, once all bytes are there.
  ///
  /// - Throws: `Fault` `hash-mismatch`: it is removed.
  func finish() throws {
    guard !isComplete, offset == request.bytes else {
      return
    }
    try open()  // an empty file comes without a chunk
    shut()
    guard try Storage.sha256(part) == request.sha256 else {
      unlink(part)
      throw Fault("hash-mismatch", "\(request.path) arrived damaged")
    }
    guard rename(part, target) == 0 else {
      throw SystemError().fault("bad-path", request.path)
    }
    isComplete = true
  }

  private func open() throws {
    guard file < 0 else {
      return
    }
    do {
      let folder = (target as NSString).deletingLastPathComponent
      try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
    } catch {
      throw Fault("bad-path", "\(request.path): its folder cannot be made")
    }
    // A link could lead anywhere.
    file = Foundation.open(part, O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0o644)
    guard file >= 0 else {
      throw SystemError().fault("bad-path", request.path)
    }
  }

  private func shut() {
    if file >= 0 {
      close(file)
      file = -1
    }
  }
}

/// Writes all bytes to a file.
///
/// - Throws: `SystemError`.
func writeAll(_ bytes: [UInt8], to file: Int32) throws {
  try bytes.withUnsafeBytes { bytes in
    var done = 0
    while done < bytes.count {
      let count = write(file, bytes.baseAddress.map { $0 + done }, bytes.count - done)
      if count < 0, errno != EINTR {
        throw SystemError()
      }
      done += max(0, count)
    }
  }
}
