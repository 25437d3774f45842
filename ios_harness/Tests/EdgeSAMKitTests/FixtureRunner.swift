import Foundation

@testable import EdgeSAMKit

/// No runtime: it answers a prompt with the same logits for every picture, and fails to order.
final class FixtureRunner: GraphRunner, @unchecked Sendable {
  /// Logits of the four masks, everywhere the same; the best one is `best`.
  var logits: [Float] = [-1, -1, 1, -1]
  var best = 2
  /// Called before each step of that name: `open`, `encode`, `decode`.
  var before: (String) throws -> Void = { _ in }

  private(set) var image: Tensor?
  private(set) var labels: [Float] = []
  private(set) var coords: [Float] = []
  private(set) var cache: URL?

  let applied: String? = "cpu"
  let threads: Int? = nil
  let note: String? = nil

  func open(encoder: URL, decoder: URL, model: ModelDescription, cache: URL) throws {
    try before("open")
    self.cache = cache
  }

  func encode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
    try before("encode")
    image = inputs[0]
    // The embedding tells the picture, so that a test sees which one a prompt was answered for.
    outputs[0].data.bindMemory(to: Float.self)[0] = inputs[0][0]
  }

  func decode(_ inputs: [Tensor], _ outputs: [Tensor]) throws {
    try before("decode")
    coords = (0..<inputs[1].spec.elements).map { inputs[1][$0] }
    labels = (0..<inputs[2].spec.elements).map { inputs[2][$0] }
    let plane = outputs[1].spec.elements
    for index in 0..<4 * plane {
      outputs[0].data.bindMemory(to: Float.self)[index] = logits[index / plane]
    }
    for index in 0..<plane {
      outputs[1].data.bindMemory(to: Float.self)[index] = logits[best]
    }
    for index in 0..<4 {
      outputs[2].data.bindMemory(to: Float.self)[index] = inputs[0][0] + Float(index)
    }
  }

  func close() {}

  /// A model of that size, of three slots.
  static func model(
    _ size: Int, _ dtype: TensorSpec.DType = .uint8, _ layout: String = "NHWC", halves: Bool = false
  ) -> ModelDescription {
    let low = size / 4
    let kind: TensorSpec.DType = halves ? .float16 : .float32
    func tensor(_ name: String, _ shape: [Int], _ dtype: TensorSpec.DType, _ layout: String = "X") -> TensorSpec {
      TensorSpec(name: name, shape: shape, dtype: dtype, layout: layout)
    }
    return ModelDescription(
      encoder: .init(
        inputs: [tensor("image", layout == "NHWC" ? [1, size, size, 3] : [1, 3, size, size], dtype, layout)],
        outputs: [tensor("image_embeddings", [1, 4], kind)]),
      decoder: .init(
        inputs: [
          tensor("image_embeddings", [1, 4], kind), tensor("point_coords", [1, 3, 2], .float32),
          tensor("point_labels", [1, 3], .float32),
        ],
        outputs: [
          tensor("masks", [1, 4, low, low], kind), tensor("best_mask", [1, 1, low, low], kind),
          tensor("scores", [1, 4], kind),
        ]),
      picture: .init(size: size, padRGB: [123.675, 116.28, 103.53]),
      prompt: .init(slots: 3, promptsPerCall: 1, maskInput: false),
      mask: .init(lowResolution: low, threshold: 0, score: "iou", pointMasks: 3))
  }
}
