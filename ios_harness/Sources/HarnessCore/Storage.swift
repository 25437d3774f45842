import EdgeSAMKit
import Foundation

/// The harness's own folder: `models/`, `inputs/`, `jobs/` with kept streams, `cache/` of runtimes.
///
/// Nothing outside it is opened.
struct Storage: Sendable {
  private static let longestPicture = 3 * Picture.mostPixels + 1024

  private let root: String

  /// Makes the folder where it is not there.
  ///
  /// - Throws: `Fault` `internal` where it cannot be.
  init(_ folder: URL) throws {
    do {
      let jobs = folder.appendingPathComponent("jobs")
      try FileManager.default.createDirectory(at: jobs, withIntermediateDirectories: true)
      root = try Storage.real(folder.path)
    } catch {
      throw Fault("internal", "the folder \(folder.path) cannot be used: \(Fault(error).message)")
    }
  }

  /// Where a path leads that was checked by its names.
  ///
  /// - Throws: `Fault` `bad-path` where a link leads out of the folder, or a file is where a folder is wanted.
  func place(_ path: String) throws -> String {
    var place = root
    for part in path.split(separator: "/") {
      place += "/" + part
      guard let status = Storage.status(place) else {
        continue  // nor is there anything below
      }
      if status.st_mode & S_IFMT == S_IFLNK {
        guard let target = try? Storage.real(place), target.hasPrefix(root + "/") else {
          throw Fault("bad-path", "\(path) leads out of the harness's folder")
        }
      }
    }
    if Storage.status(place) == nil, errno == ENOTDIR {
      throw Fault("bad-path", "\(path): a file is where a folder is wanted")
    }
    return place
  }

  /// A file of a job, by its path within the folder.
  ///
  /// - Throws: `Fault` `bad-path`, `not-found`.
  func file(_ path: String) throws -> String {
    let place = try place(path)
    guard FileManager.default.fileExists(atPath: place) else {
      throw Fault("not-found", "no file \(path)", hint: "push it first")
    }
    return place
  }

  /// A model's file or folder. One that is not what the job names is removed: it is to come anew.
  ///
  /// - Throws: `Fault` `bad-path`, `not-found`, `hash-mismatch`.
  func model(_ graph: GraphFile) throws -> URL {
    let place = try file(graph.path)
    let found = try Storage.sha256(place)
    guard found == graph.sha256 else {
      try? FileManager.default.removeItem(atPath: place)
      throw Fault("hash-mismatch", "\(graph.path) has sha256 \(found) and was removed", hint: "push it again")
    }
    return URL(fileURLWithPath: place)
  }

  /// A picture of a job, a binary PPM.
  ///
  /// - Throws: `Fault` `bad-path`, `not-found`, `too-large`; `SegmentationError` for what is no picture.
  func picture(_ path: String) throws -> Picture {
    try Picture(ppm: try content(path))
  }

  /// An expected mask of a job, a binary PBM. Throws as `picture`.
  func mask(_ path: String) throws -> Mask {
    try Mask(pbm: try content(path))
  }

  private func content(_ path: String) throws -> Data {
    let place = try file(path)
    guard let status = Storage.status(place), status.st_size <= Storage.longestPicture else {
      throw Fault("too-large", "\(path) is larger than any picture")
    }
    do {
      return try Data(contentsOf: URL(fileURLWithPath: place))
    } catch {
      throw Fault("bad-path", "\(path) cannot be read: \(error.localizedDescription)")
    }
  }

  /// An empty folder for what a runtime keeps on disk.
  func emptyCache() throws -> URL {
    let cache = URL(fileURLWithPath: root).appendingPathComponent("cache")
    if FileManager.default.fileExists(atPath: cache.path) {
      try FileManager.default.removeItem(at: cache)
    }
    try FileManager.default.createDirectory(at: cache, withIntermediateDirectories: true)
    return cache
  }

  /// Where a job's events are kept.
  func kept(_ job: String) -> String {
    "\(root)/jobs/\(job).jsonl"
  }

  /// Where the last job lies as it was sent.
  var lastJob: String {
    "\(root)/jobs/last.json"
  }

  /// Bytes that are free, or nil where the system does not tell.
  func freeBytes() -> Int? {
    var status = statvfs()
    guard statvfs(root, &status) == 0 else {
      return nil
    }
    return Int(clamping: UInt64(status.f_bavail) * UInt64(status.f_frsize))
  }

  /// The SHA-256 of a file, or of a folder's relative names and contents, sorted: the manifest's.
  ///
  /// - Throws: `Fault` `bad-path` where it cannot be read, or a link lies in the folder.
  static func sha256(_ place: String) throws -> String {
    guard let kind = status(place).map({ $0.st_mode & S_IFMT }), kind == S_IFDIR else {
      return try sha256(file: place)
    }
    var digest = Digest()
    for member in try members(place).sorted(by: { $0.lexicographicallyPrecedes($1) }) {
      let name = member.joined(separator: "/")
      Array("\(name)\0\(try sha256(file: "\(place)/\(name)"))\n".utf8).withUnsafeBytes { digest.update($0) }
    }
    return digest.hexadecimal()
  }

  /// The files below a folder, each by the parts of its path.
  private static func members(_ folder: String) throws -> [[String]] {
    try FileManager.default.contentsOfDirectory(atPath: folder).flatMap { name -> [[String]] in
      let kind = status("\(folder)/\(name)").map { $0.st_mode & S_IFMT }
      guard kind != S_IFLNK else {
        throw Fault("bad-path", "\(name) is a link")
      }
      return kind == S_IFDIR ? try members("\(folder)/\(name)").map { [name] + $0 } : [[name]]
    }
  }

  private static func sha256(file place: String) throws -> String {
    let file = open(place, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else {
      throw SystemError().fault("bad-path", place)
    }
    defer { close(file) }
    var digest = Digest()
    var piece = [UInt8](repeating: 0, count: 1 << 20)
    while true {
      let count = read(file, &piece, piece.count)
      guard count >= 0 else {
        throw SystemError().fault("bad-path", place)
      }
      if count == 0 {
        return digest.hexadecimal()
      }
      piece.withUnsafeBytes { digest.update(UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }
  }

  /// What a place is, links not followed; nil where nothing is, with `errno`.
  static func status(_ place: String) -> stat? {
    var status = stat()
    return lstat(place, &status) == 0 ? status : nil
  }

  private static func real(_ place: String) throws -> String {
    guard let path = realpath(place, nil) else {
      throw SystemError()
    }
    defer { free(path) }
    return String(cString: path)
  }
}
