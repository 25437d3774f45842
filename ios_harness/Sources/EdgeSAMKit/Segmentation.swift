/// What a prompt found.
public struct Segmentation: Sendable {
  /// How long the steps of an answer took.
  public struct Timings: Sendable, Equatable {
    /// The decoder.
    public let decode: Duration
    /// Enlarging the mask and cutting it at the threshold.
    public let post: Duration
  }

  /// The object, at the picture's size.
  public let mask: Mask
  /// How good the model thinks its mask is, 0 to 1; nil where it does not say.
  public let score: Float?
  /// Which of the four masks it is: 0 for the whole of a box, 1 to 3 for a part, an object, a group.
  public let index: Int
  /// Logits of the mask before it was enlarged, row by row, of the whole padded frame.
  public let logits: [Float]
  /// Side of `logits`.
  public let logitsSide: Int
  /// How long it took.
  public let timings: Timings

  /// How little the mask depends on the threshold, 0 to 1, whatever ``score`` is: its IoU with itself when the threshold
  /// moves by `offset` either way (segment-anything's stability score), over the whole frame; 0 for an empty mask.
  public func stability(threshold: Float = 0, offset: Float = 1) -> Float {
    let inner = logits.lazy.filter { $0 > threshold + offset }.count
    let outer = logits.lazy.filter { $0 > threshold - offset }.count
    return outer == 0 ? 0 : Float(inner) / Float(outer)
  }
}

/// How long the steps of setting a picture took.
public struct ImageTimings: Sendable, Equatable {
  /// Making a ``Picture`` of an image of Core Graphics or of a pixel buffer; zero for a ``Picture``. No part of what the
  /// harness times, whose pictures are ready.
  public internal(set) var convert = Duration.zero
  /// Resizing and padding.
  public let pre: Duration
  /// The encoder.
  public let encode: Duration
}
