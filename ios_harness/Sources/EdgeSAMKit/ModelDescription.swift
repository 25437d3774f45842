/// What a manifest says of one artefact: how pictures and prompts become tensors, and tensors a mask.
///
/// Its JSON keys are those of the harness protocol's job.
public struct ModelDescription: Codable, Equatable, Sendable {
  /// Inputs and outputs of a graph, in the file's order.
  public struct Graph: Codable, Equatable, Sendable {
    /// What goes in.
    public let inputs: [TensorSpec]
    /// What comes out.
    public let outputs: [TensorSpec]

    /// A graph of these inputs and outputs.
    public init(inputs: [TensorSpec], outputs: [TensorSpec]) {
      self.inputs = inputs
      self.outputs = outputs
    }
  }

  /// How a picture becomes the encoder's input.
  public struct PictureRule: Codable, Equatable, Sendable {
    /// The longest side that a model may have.
    public static let largestSize = 1 << 14

    /// Side of the square frame that the encoder sees, in pixels.
    public let size: Int
    /// Red, green and blue of the padding, 0 to 255.
    public let padRGB: [Double]

    /// A frame of `size` pixels a side, padded with `padRGB`.
    public init(size: Int, padRGB: [Double]) {
      self.size = size
      self.padRGB = padRGB
    }

    enum CodingKeys: String, CodingKey {
      case size
      case padRGB = "pad_rgb"
    }
  }

  /// How prompts become the decoder's inputs.
  public struct PromptRule: Codable, Equatable, Sendable {
    /// The most slots, and the most prompts, that a call may have.
    public static let most = 1024

    /// Points that one prompt may have; a box takes two.
    public let slots: Int
    /// Prompts of one call of the decoder; the first is used.
    public let promptsPerCall: Int
    /// Whether the decoder takes masks as prompts.
    public let maskInput: Bool

    /// A decoder of that many slots and prompts.
    public init(slots: Int, promptsPerCall: Int, maskInput: Bool) {
      self.slots = slots
      self.promptsPerCall = promptsPerCall
      self.maskInput = maskInput
    }

    enum CodingKeys: String, CodingKey {
      case slots
      case promptsPerCall = "prompts_per_call"
      case maskInput = "mask_input"
    }
  }

  /// How the decoder's outputs become a mask.
  public struct MaskRule: Codable, Equatable, Sendable {
    /// Side of the logits.
    public let lowResolution: Int
    /// Logits above it are the object.
    public let threshold: Double
    /// What scores are: `iou` or `stability`.
    public let score: String
    /// How many of the four masks a point may choose from.
    public let pointMasks: Int

    /// Logits of `lowResolution` a side, cut at `threshold`.
    public init(lowResolution: Int, threshold: Double, score: String, pointMasks: Int) {
      self.lowResolution = lowResolution
      self.threshold = threshold
      self.score = score
      self.pointMasks = pointMasks
    }

    enum CodingKeys: String, CodingKey {
      case lowResolution = "low_resolution"
      case threshold
      case score
      case pointMasks = "point_masks"
    }
  }

  /// Picture to embedding.
  public let encoder: Graph
  /// Embedding and prompt to masks.
  public let decoder: Graph
  /// How a picture becomes the encoder's input.
  public let picture: PictureRule
  /// How prompts become the decoder's inputs.
  public let prompt: PromptRule
  /// How the decoder's outputs become a mask.
  public let mask: MaskRule

  /// A description from its parts.
  public init(encoder: Graph, decoder: Graph, picture: PictureRule, prompt: PromptRule, mask: MaskRule) {
    self.encoder = encoder
    self.decoder = decoder
    self.picture = picture
    self.prompt = prompt
    self.mask = mask
  }
}
