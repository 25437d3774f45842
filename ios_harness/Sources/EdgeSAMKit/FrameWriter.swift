/// Writes resized pictures into the encoder's input, padded on the right and below.
struct FrameWriter {
  private let image: Tensor
  private let size: Int
  private let padding: [Double]

  /// - Throws: ``SegmentationError/invalidModel(_:)`` for an input that is no picture of the rule's size.
  init(_ image: Tensor, rule: ModelDescription.PictureRule) throws {
    let channels = image.spec.dtype == .image ? 4 : 3
    guard image.spec.elements == channels * rule.size * rule.size else {
      throw SegmentationError.invalidModel("image is not of \(rule.size) x \(rule.size) pixels")
    }
    guard image.spec.dtype != .float16 else { throw SegmentationError.invalidModel("a picture of float16") }
    guard rule.padRGB.count == 3, rule.padRGB.allSatisfy({ (0...255).contains($0) }) else {
      throw SegmentationError.invalidModel("pad_rgb is not three colours of 0 to 255")
    }
    self.image = image
    size = rule.size
    padding = rule.padRGB
  }

  /// Fills the input from RGB bytes, `height x width x 3`.
  func write(_ rgb: UnsafeBufferPointer<UInt8>, width: Int, height: Int) {
    let last = image.spec.layout == "NHWC"
    let plane = size * size
    switch image.spec.dtype {
    case .image:
      // Opaque, blue first.
      fill(
        rgb, width, height, channels: [2, 1, 0], step: 4, number: { $0 },
        pad: { UInt8($0.rounded(.toNearestOrEven)) })
      for pixel in 0..<plane {
        image.data[4 * pixel + 3] = 255
      }
    case .uint8:
      fill(
        rgb, width, height, channels: last ? [0, 1, 2] : [0, plane, 2 * plane], step: last ? 3 : 1, number: { $0 },
        pad: { UInt8($0.rounded(.toNearestOrEven)) })
    case .float32, .float16:
      fill(
        rgb, width, height, channels: last ? [0, 1, 2] : [0, plane, 2 * plane], step: last ? 3 : 1,
        number: { Float($0) }, pad: { Float($0) })
    }
  }

  /// - Parameters:
  ///   - channels: where the first pixel's red, green and blue go.
  ///   - step: from one pixel to the next.
  private func fill<Number>(
    _ rgb: UnsafeBufferPointer<UInt8>, _ width: Int, _ height: Int, channels: [Int], step: Int,
    number: (UInt8) -> Number, pad: (Double) -> Number
  ) {
    let target = image.data.bindMemory(to: Number.self)
    for y in 0..<size {
      let inside = y < height ? width : 0
      let from = 3 * width * y
      for channel in 0..<3 {
        let at = channels[channel] + y * size * step
        let colour = pad(padding[channel])
        for x in 0..<inside {
          target[at + x * step] = number(rgb[from + 3 * x + channel])
        }
        for x in inside..<size {
          target[at + x * step] = colour
        }
      }
    }
  }
}
