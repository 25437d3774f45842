import COnnxRuntime
import EdgeSAMKit
import Foundation

/// ONNX Runtime out of a shared library that is loaded by its path, such as the one in its Python package.
///
/// It is asked for the interface of the header's version, which every newer library still has.
final class OnnxLibrary: @unchecked Sendable {
  /// The library's own version, such as `1.32.0`.
  let version: String
  /// Its functions.
  let api: OrtApi
  /// What all sessions share; lives as long as the process.
  let environment: OpaquePointer

  /// Loads the library.
  ///
  /// - Parameter path: the shared library's file.
  /// - Throws: ``SegmentationError/unavailable(_:)`` where it is none, or older than the header.
  init(path: String) throws {
    guard let library = dlopen(path, RTLD_NOW | RTLD_LOCAL) else {
      let reason = dlerror().map { String(cString: $0) } ?? "no reason given"
      throw SegmentationError.unavailable("cannot load \(path): \(oneLine(reason))")
    }
    guard let symbol = dlsym(library, "OrtGetApiBase") else {
      throw SegmentationError.unavailable("\(path) is not ONNX Runtime")
    }
    typealias GetBase = @convention(c) () -> UnsafePointer<OrtApiBase>?
    guard let base = unsafeBitCast(symbol, to: GetBase.self)()?.pointee, let told = base.GetVersionString() else {
      throw SegmentationError.unavailable("\(path) does not tell its version")
    }
    version = String(cString: told)
    guard let api = base.GetApi(UInt32(ORT_API_VERSION))?.pointee else {
      throw SegmentationError.unavailable("ONNX Runtime \(version) is older than 1.\(ORT_API_VERSION)")
    }
    self.api = api
    var made: OpaquePointer?
    try api.must(api.CreateEnv(ORT_LOGGING_LEVEL_ERROR, "edgesam", &made), SegmentationError.unavailable)
    guard let made else { throw SegmentationError.unavailable("ONNX Runtime \(version) has no environment") }
    environment = made
  }
}

extension OrtApi {
  /// Throws what a call says went wrong, in the runtime's own words.
  func must(_ status: OpaquePointer?, _ failure: (String) -> SegmentationError) throws {
    guard let status else { return }
    defer { ReleaseStatus(status) }
    let message = GetErrorMessage(status).map { String(cString: $0) } ?? "no reason given"
    throw failure(oneLine(message))
  }
}

private func oneLine(_ text: String) -> String {
  text.split(whereSeparator: \.isWhitespace).joined(separator: " ")
}
