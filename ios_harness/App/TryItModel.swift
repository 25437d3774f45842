import Combine
import EdgeSAMKit
import SwiftUI

/// A picture, a prompt on it, and the mask that the model finds.
@MainActor
final class TryItModel: ObservableObject {
  /// A package's artefact for Core ML.
  struct Choice: Hashable {
    let package: URL
    let artifact: String

    var name: String { "\(package.lastPathComponent): \(artifact)" }
  }

  @Published private(set) var choices: [Choice] = []
  @Published var choice: Choice? { didSet { open() } }
  @Published var units = ComputeUnits.all { didSet { open() } }
  @Published private(set) var image: CGImage?
  @Published private(set) var overlay: CGImage?
  @Published private(set) var status = ""

  private var session: SegmentationSession?
  private var loading: Task<Bool, Never>?
  private var embedding: Task<Bool, Never>?
  private var prompting: Task<Bool, Never>?

  /// Looks for packages: folders with a manifest in the app's documents, or in `Packages` when the app was built.
  func look() {
    let builtIn = Bundle.main.url(forResource: "Packages", withExtension: nil)
    let places = [URL.documentsDirectory, builtIn].compactMap { $0 }
    let folders = places.flatMap { place in
      (try? FileManager.default.contentsOfDirectory(at: place, includingPropertiesForKeys: nil)) ?? []
    }
    choices = folders.compactMap { try? ModelPackage(folder: $0) }.flatMap { package in
      package.artifacts.filter { $0.format == "coreml" && $0.runsHere }.map {
        Choice(package: package.folder, artifact: $0.id)
      }
    }
    if choice.map({ choices.contains($0) }) != true {
      choice = choices.first
    }
    if choices.isEmpty {
      status = "No package here: copy one that `edgesam-mobile build --target ios` made into this app's files."
    }
  }

  private func open() {
    [loading, embedding, prompting].forEach { $0?.cancel() }
    session = nil
    overlay = nil
    guard let choice else { return }
    loading = attempt("loading \(choice.name)") { [units] in
      let began = ContinuousClock.now
      let session = try await SegmentationSession(
        package: choice.package, artifact: choice.artifact, computeUnits: units)
      try Task.checkCancellation()  // another model may have been chosen meanwhile
      self.session = session
      self.status = "loaded in \(Self.milliseconds(began.duration(to: .now)))"
      self.embed()
    }
  }

  /// Takes another picture; while a model is loading, it is embedded after that.
  func use(_ data: Data) {
    guard let upright = UIImage(data: data)?.upright else {
      status = "That picture cannot be read."
      return
    }
    image = upright
    overlay = nil
    embed()
  }

  private func embed() {
    [embedding, prompting].forEach { $0?.cancel() }
    guard let session, let image else { return }
    embedding = attempt("encoding") {
      let times = try await session.setImage(image)
      try Task.checkCancellation()
      let picture = Self.milliseconds(times.convert + times.pre)
      self.status = "picture \(picture) and encoder \(Self.milliseconds(times.encode)): tap, or drag a box"
    }
  }

  /// Segments at a point, or in a box if one was dragged; in pixels of the picture that is shown.
  func segment(from: CGPoint, to: CGPoint, isBox: Bool) {
    guard let session, let embedding else { return }
    prompting?.cancel()
    prompting = attempt(nil) {
      guard await embedding.value else { return }  // why not is on the screen already
      try Task.checkCancellation()
      self.status = "decoding"
      let found: Segmentation
      if isBox {
        found = try await session.segment(
          box: Prompt.Box(
            left: min(from.x, to.x), top: min(from.y, to.y), right: max(from.x, to.x), bottom: max(from.y, to.y)))
      } else {
        found = try await session.segment(points: [Prompt.Point(x: to.x, y: to.y)])
      }
      try Task.checkCancellation()  // another picture may have been taken meanwhile
      self.overlay = found.mask.image()
      let score = found.score.map { ", score \($0.formatted(.number.precision(.fractionLength(2))))" } ?? ""
      let times = found.timings
      self.status = "decoder \(Self.milliseconds(times.decode)), mask \(Self.milliseconds(times.post))\(score)"
    }
  }

  /// Begins something, and says why it fails; its value tells whether it was done.
  private func attempt(
    _ what: String?, _ body: @escaping @MainActor () async throws -> Void
  ) -> Task<Bool, Never> {
    if let what { status = what }
    return Task {
      do {
        try await body()
        return true
      } catch is CancellationError {
      } catch let error as SegmentationError {
        status = "\(error.message): \(error.hint)"
      } catch {
        status = error.localizedDescription
      }
      return false
    }
  }

  private static func milliseconds(_ duration: Duration) -> String {
    duration.formatted(.units(allowed: [.milliseconds], fractionalPart: .show(length: 1)))
  }
}

extension UIImage {
  /// Its pixels as they are seen, whatever way the camera was held.
  fileprivate var upright: CGImage? {
    let format = UIGraphicsImageRendererFormat()
    format.scale = 1
    format.preferredRange = .standard  // twice the memory otherwise, for colours that no model sees
    return UIGraphicsImageRenderer(size: size, format: format).image { _ in
      draw(in: CGRect(origin: .zero, size: size))
    }.cgImage
  }
}
