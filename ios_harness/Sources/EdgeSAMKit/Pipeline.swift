import Foundation

/// One model, cut into the four steps of a frame: ``pre()``, ``encode()``, ``decode(_:)`` and ``post()``. Every buffer is
/// made before the first frame. What the harness times is what ``SegmentationSession`` runs. For one thread at a time.
package final class Pipeline {
  private let model: ModelDescription
  private let runner: GraphRunner
  private let encoderInputs: [Tensor]
  private let encoderOutputs: [Tensor]
  private let decoderInputs: [Tensor]
  private let decoderOutputs: [Tensor]
  private let coords: Tensor
  private let labels: Tensor
  private let masks: Tensor
  private let shown: Tensor
  private let scoreTensor: Tensor?
  private let frame: FrameWriter
  private var logits: [Float]
  private var seen: Seen?

  /// What belongs to the picture that is set.
  private final class Seen {
    var picture: Picture
    let geometry: Geometry
    let resampling: Resampling
    let upscaling: Upscaling
    var mask: Mask

    init(_ picture: Picture, geometry: Geometry, model: ModelDescription) {
      self.picture = picture
      self.geometry = geometry
      resampling = Resampling(
        width: picture.width, height: picture.height, newWidth: geometry.resizedWidth,
        newHeight: geometry.resizedHeight)
      upscaling = Upscaling(geometry: geometry, low: model.mask.lowResolution, size: model.picture.size)
      mask = Mask(width: picture.width, height: picture.height)
    }
  }

  /// Allocates the tensors of a model.
  ///
  /// - Throws: ``SegmentationError/invalidModel(_:)``: the model's tensors do not fit each other.
  package init(model: ModelDescription, runner: GraphRunner) throws {
    // A description may come from somebody else: no product of its numbers overflows within these.
    guard (1...ModelDescription.PictureRule.largestSize).contains(model.picture.size) else {
      throw SegmentationError.invalidModel("a frame of \(model.picture.size) pixels")
    }
    for count in [model.prompt.slots, model.prompt.promptsPerCall] {
      guard (1...ModelDescription.PromptRule.most).contains(count) else {
        throw SegmentationError.invalidModel("\(count) slots or prompts")
      }
    }
    let side = model.mask.lowResolution
    guard side >= 1, side <= model.picture.size else {
      throw SegmentationError.invalidModel("masks of \(side) for a frame of \(model.picture.size) pixels")
    }
    self.model = model
    self.runner = runner
    encoderInputs = model.encoder.inputs.map(Tensor.init)
    encoderOutputs = model.encoder.outputs.map(Tensor.init)
    decoderOutputs = model.decoder.outputs.map(Tensor.init)
    frame = try FrameWriter(encoderInputs.named("image"), rule: model.picture)
    let prompts = model.prompt.promptsPerCall
    let embedding = try encoderOutputs.named("image_embeddings")
    decoderInputs = model.decoder.inputs.map { $0.name == "image_embeddings" ? embedding : Tensor($0) }
    guard let wanted = model.decoder.inputs.first(where: { $0.name == "image_embeddings" }),
      wanted.bytes == embedding.spec.bytes, wanted.dtype == embedding.spec.dtype
    else { throw SegmentationError.invalidModel("the decoder's image_embeddings are not the encoder's") }
    coords = try Self.sized(decoderInputs.named("point_coords"), 2 * model.prompt.slots * prompts, .float32)
    labels = try Self.sized(decoderInputs.named("point_labels"), model.prompt.slots * prompts, .float32)
    masks = try Self.sized(decoderOutputs.named("masks"), 4 * side * side * prompts)
    shown = try Self.sized(decoderOutputs.named("best_mask"), side * side * prompts)
    scoreTensor = try? Self.sized(decoderOutputs.named("scores"), 4 * prompts)
    logits = [Float](repeating: 0, count: side * side)
  }

  /// Loads both graphs, as ``GraphRunner/open(encoder:decoder:model:cache:)`` does.
  package func load(encoder: URL, decoder: URL, cache: URL) throws {
    try runner.open(encoder: encoder, decoder: decoder, model: model, cache: cache)
  }

  /// The picture of the next frames.
  package var picture: Picture? { seen?.picture }

  /// Sets the picture of the next frames.
  package func use(_ picture: Picture) {
    let geometry = Geometry(width: picture.width, height: picture.height, size: model.picture.size)
    if let seen, seen.geometry == geometry {
      seen.picture = picture  // frames of a video are of one size: what is made for a size is kept
    } else {
      seen = Seen(picture, geometry: geometry, model: model)
    }
  }

  /// Resizes and pads: fills the encoder's input.
  package func pre() {
    guard let seen else { preconditionFailure("no picture") }
    seen.resampling.apply(seen.picture.rgb) {
      frame.write($0, width: seen.geometry.resizedWidth, height: seen.geometry.resizedHeight)
    }
  }

  /// Runs the encoder.
  package func encode() throws {
    try runner.encode(encoderInputs, encoderOutputs)
  }

  /// Runs the decoder.
  ///
  /// - Throws: ``SegmentationError/invalidPrompt(_:)``, or what the runner throws.
  package func decode(_ prompt: Prompt) throws {
    guard let seen else { throw SegmentationError.noImage }
    try prompt.fill(coords: coords, labels: labels, rule: model.prompt, geometry: seen.geometry)
    try runner.decode(decoderInputs, decoderOutputs)
  }

  /// Enlarges the best mask's logits and cuts them at the threshold.
  package func post() -> Mask {
    guard let seen else { preconditionFailure("no picture") }
    shown.read(into: &logits)
    var mask = Mask(width: 0, height: 0)
    swap(&mask, &seen.mask)  // taken out, so that its memory is not copied where nobody else has it
    seen.upscaling.threshold(logits, at: Float(model.mask.threshold), into: &mask)
    seen.mask = mask
    return mask
  }

  /// Which of the four masks the graph chose: the one whose logits are nearest to those of the last
  /// ``post()``.
  package func best() -> Int {
    var nearest = 0
    var least = Float.infinity
    for k in 0..<4 {
      var distance: Float = 0
      for i in logits.indices where distance < least {
        distance = max(distance, abs(masks[k * logits.count + i] - logits[i]))
      }
      if distance < least {
        least = distance
        nearest = k
      }
    }
    return nearest
  }

  /// The scores of the four masks; none where the graph does not give them.
  package func scores() -> [Float] {
    guard let scoreTensor else { return [] }
    return (0..<4).map { scoreTensor[$0] }
  }

  /// Logits of the last ``post()``'s mask, `low_resolution` a side, row by row.
  package var shownLogits: [Float] { logits }

  private static func sized(_ tensor: Tensor, _ elements: Int, _ dtype: TensorSpec.DType? = nil) throws -> Tensor {
    guard tensor.spec.elements == elements, dtype == nil || tensor.spec.dtype == dtype else {
      let what = "\(tensor.spec.name) has \(tensor.spec.elements) numbers of \(tensor.spec.dtype.rawValue)"
      throw SegmentationError.invalidModel("\(what), not \(elements)\(dtype.map { " of \($0.rawValue)" } ?? "")")
    }
    return tensor
  }
}
