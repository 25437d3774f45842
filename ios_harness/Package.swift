// swift-tools-version: 5.9

import Foundation
import PackageDescription

let strict: [SwiftSetting] = [.enableExperimentalFeature("StrictConcurrency")]

// On Linux there is no Core ML: a stand-in of that name lets its users be compiled and tested, where it is asked for.
#if os(Linux)
  let standIn = Context.environment["EDGESAM_STANDIN_COREML"] == "1"
#else
  let standIn = false
#endif
let coreML: [Target.Dependency] = standIn ? ["CoreML"] : []

let package = Package(
  name: "EdgeSAM",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [
    .library(name: "EdgeSAMKit", targets: ["EdgeSAMKit"]),
    .library(name: "HarnessForApple", targets: ["HarnessCore", "HarnessCoreML"]),
  ],
  targets: [
    .target(name: "EdgeSAMKit", dependencies: coreML, swiftSettings: strict),
    .target(name: "HarnessCore", dependencies: ["EdgeSAMKit"], swiftSettings: strict),
    .target(name: "HarnessCoreML", dependencies: ["HarnessCore", "EdgeSAMKit"] + coreML, swiftSettings: strict),
    // A model made up for tests, and a harness that runs it.
    .target(name: "MadeUp", dependencies: ["EdgeSAMKit", "HarnessCore"], path: "Tests/MadeUp"),
    .executableTarget(
      name: "harness-made-up", dependencies: ["MadeUp", "HarnessCore"], path: "Tests/harness-made-up"),
    .testTarget(name: "EdgeSAMKitTests", dependencies: ["EdgeSAMKit"] + coreML),
    .testTarget(name: "HarnessCoreTests", dependencies: ["EdgeSAMKit", "HarnessCore", "MadeUp"]),
    .testTarget(name: "HarnessCoreMLTests", dependencies: ["HarnessCoreML", "HarnessCore", "EdgeSAMKit"] + coreML),
  ]
)

if standIn {
  package.targets.append(.target(name: "CoreML", path: "Sources/StandInCoreML"))
}

#if os(Linux)
  // Debian's libonnxruntime-dev; the library itself is loaded when it is needed.
  if FileManager.default.fileExists(atPath: "/usr/include/onnxruntime/onnxruntime_c_api.h") {
    package.targets += [
      .systemLibrary(name: "COnnxRuntime"),
      .target(name: "HarnessORT", dependencies: ["COnnxRuntime", "HarnessCore", "EdgeSAMKit"], swiftSettings: strict),
      .executableTarget(
        name: "harness-loopback", dependencies: ["HarnessORT", "HarnessCore", "EdgeSAMKit"], swiftSettings: strict),
      .testTarget(name: "HarnessORTTests", dependencies: ["HarnessORT", "HarnessCore", "EdgeSAMKit"]),
    ]
  }
#endif
