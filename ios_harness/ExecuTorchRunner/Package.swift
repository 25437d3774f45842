// swift-tools-version: 5.9

import PackageDescription

// A package of its own, since everything else is to build without the network.
let package = Package(
  name: "ExecuTorchRunner",
  platforms: [.iOS(.v17), .macOS(.v14)],
  products: [.library(name: "ExecuTorchRunner", targets: ["ExecuTorchRunner"])],
  dependencies: [
    .package(name: "EdgeSAM", path: ".."),
    // The branch of the release that exports the packages: see `executorch` in pyproject.toml.
    .package(url: "https://github.com/pytorch/executorch.git", branch: "swiftpm-1.5.1"),
  ],
  targets: [
    .target(
      name: "ExecuTorchRunner",
      dependencies: [
        .product(name: "EdgeSAMKit", package: "EdgeSAM"), .product(name: "EdgeSAMHarness", package: "EdgeSAM"),
        .product(name: "executorch", package: "executorch"),
        .product(name: "backend_xnnpack", package: "executorch"),
        .product(name: "backend_coreml", package: "executorch"),
        .product(name: "kernels_optimized", package: "executorch"),
        .product(name: "kernels_quantized", package: "executorch"),
      ])
  ]
)
