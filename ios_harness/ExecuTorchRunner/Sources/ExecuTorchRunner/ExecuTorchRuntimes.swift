import EdgeSAMKit
import HarnessCore

/// ExecuTorch as a runtime of the harness. A program brings its delegate along, chosen when it was exported.
public struct ExecuTorchRuntimes: Runtimes {
  private static let version = "1.5.1"

  /// One entry for each delegate's format.
  public let all = [("executorch-xnnpack", "xnnpack"), ("executorch-coreml", "all")].map { format, delegate in
    RuntimeInfo(name: "ExecuTorch", version: version, formats: [format], delegates: [delegate])
  }

  /// ExecuTorch as it is linked into the app.
  public init() {}

  /// A runner for a program. ExecuTorch's Swift API has no setting for threads.
  ///
  /// - Throws: `Fault` `no-runtime`, `no-delegate`.
  public func runner(format: String, runtime: String?, delegate: String?, threads: Int?) throws -> GraphRunner {
    _ = try RuntimeInfo.choose(from: all, format: format, runtime: runtime, delegate: delegate)
    return ExecuTorchRunner()
  }
}
