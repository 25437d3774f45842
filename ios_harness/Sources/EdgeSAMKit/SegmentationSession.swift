import Foundation

/// Segments objects in pictures: set a picture once, then ask for as many points and boxes as you like.
///
/// ```swift
/// let session = try await SegmentationSession(package: folder)
/// try await session.setImage(cgImage)
/// let found = try await session.segment(points: [Prompt.Point(x: 320, y: 240)])
/// print(found.mask.area, found.score ?? 0)
/// ```
///
/// Calls are served one after another, in a queue of the session's own. A prompt is always answered for one picture:
/// the last one whose `setImage` had begun before the prompt's turn came. A `setImage` that fails leaves the session
/// without a picture if the encoder had begun, and with the former one otherwise. A task that is cancelled throws
/// `CancellationError` at its next step: a `setImage` that has not reached the encoder then changes nothing, so an app
/// that follows a video cancels the task of a frame when the next one comes.
public actor SegmentationSession {
  /// How the model is called.
  public nonisolated let model: ModelDescription

  private let queue = SessionQueue()
  private let pipeline: Pipeline
  private var hasImage = false

  /// The session's own queue.
  public nonisolated var unownedExecutor: UnownedSerialExecutor { queue.asUnownedSerialExecutor() }

  /// Loads a model into a runtime of the caller's.
  ///
  /// - Parameters:
  ///   - model: its inputs and outputs.
  ///   - encoder: the encoder's file or folder.
  ///   - decoder: the decoder's.
  ///   - cache: a folder where the runtime may keep what makes its next load faster.
  ///   - runner: makes the runtime's runner, which is the session's alone.
  /// - Throws: ``SegmentationError``.
  public init(
    model: ModelDescription, encoder: URL, decoder: URL, cache: URL, runner: @Sendable () throws -> GraphRunner
  ) async throws {
    self.model = model
    pipeline = try Pipeline(model: model, runner: try runner())
    try load(encoder, decoder, cache)
  }

  private func load(_ encoder: URL, _ decoder: URL, _ cache: URL) throws {
    try pipeline.load(encoder: encoder, decoder: decoder, cache: cache)
  }

  /// Sets the picture of the next prompts, and runs the encoder on it.
  ///
  /// - Returns: how long it took.
  /// - Throws: ``SegmentationError/runFailed(_:)``, `CancellationError`.
  @discardableResult
  public func setImage(_ picture: Picture) throws -> ImageTimings {
    try Task.checkCancellation()
    let former = hasImage ? pipeline.picture : nil
    let clock = ContinuousClock()
    pipeline.use(picture)
    let pre = clock.measure { pipeline.pre() }
    if Task.isCancelled {
      // The embedding is still the former picture's.
      if let former { pipeline.use(former) }
      throw CancellationError()
    }
    hasImage = false
    let encode = try clock.measure { try pipeline.encode() }
    hasImage = true
    return ImageTimings(pre: pre, encode: encode)
  }

  /// Segments what points and a box of the current picture show.
  ///
  /// - Parameters:
  ///   - points: on the object, or not on it, in pixels of the picture.
  ///   - box: round the object, in pixels of the picture.
  /// - Throws: ``SegmentationError/noImage``, ``SegmentationError/invalidPrompt(_:)``,
  ///   ``SegmentationError/runFailed(_:)``, `CancellationError`.
  public func segment(points: [Prompt.Point] = [], box: Prompt.Box? = nil) throws -> Segmentation {
    try Task.checkCancellation()
    guard hasImage, let picture = pipeline.picture else { throw SegmentationError.noImage }
    let prompt = Prompt(points: points, box: box)
    try Prompt.check(points: points, box: box, in: picture)
    let clock = ContinuousClock()
    let decode = try clock.measure { try pipeline.decode(prompt) }
    try Task.checkCancellation()
    var mask = Mask(width: 0, height: 0)
    let post = clock.measure { mask = pipeline.post() }
    let index = pipeline.best()
    let scores = pipeline.scores()
    return Segmentation(
      mask: mask, score: scores.isEmpty ? nil : scores[index], index: index, logits: pipeline.shownLogits,
      logitsSide: model.mask.lowResolution, timings: .init(decode: decode, post: post))
  }
}

/// A queue of its own for each session: encoders run for long, and a thread of Swift's few must not wait for one.
private final class SessionQueue: SerialExecutor {
  private let queue = DispatchQueue(label: "dev.edgesam.session", qos: .userInitiated)

  func enqueue(_ job: consuming ExecutorJob) {
    let job = UnownedJob(job)
    let executor = asUnownedSerialExecutor()
    queue.async { job.runSynchronously(on: executor) }
  }

  func asUnownedSerialExecutor() -> UnownedSerialExecutor {
    UnownedSerialExecutor(ordinary: self)
  }
}
