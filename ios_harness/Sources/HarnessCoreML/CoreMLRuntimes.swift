#if canImport(CoreML)
  import EdgeSAMKit
  import Foundation
  import HarnessCore

  /// Core ML as the runtime of a harness; its delegates are compute units.
  public struct CoreMLRuntimes: Runtimes {
    /// Core ML alone.
    public let all: [RuntimeInfo]

    /// The system's Core ML, whose version is the system's.
    public init() {
      let version = ProcessInfo.processInfo.operatingSystemVersion
      all = [
        RuntimeInfo(
          name: "Core ML", version: "\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)",
          formats: ["coreml"], delegates: ComputeUnits.allCases.map(\.rawValue))
      ]
    }

    /// A runner that tells how Core ML placed the model. Core ML chooses the number of threads itself.
    ///
    /// - Throws: `Fault` `no-runtime`, `no-delegate`.
    public func runner(format: String, runtime: String?, delegate: String?, threads: Int?) throws -> GraphRunner {
      _ = try RuntimeInfo.choose(from: all, format: format, runtime: runtime, delegate: delegate)
      return PlacedRunner(delegate.flatMap(ComputeUnits.init) ?? .all)
    }
  }
#endif
