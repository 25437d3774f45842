import EdgeSAMKit
import Foundation

/// The protocol's request `job`, checked: one launch of one case.
struct JobRequest {
  private static let longest = 24.0 * 3600
  private static let mostGolden = 64
  static let far = 1e9

  let id: String
  let label: String
  let format: String
  let runtime: String?
  let delegate: String?
  let threads: Int?
  let encoder: GraphFile
  let decoder: GraphFile
  let model: ModelDescription
  let frame: Prompted
  let golden: [Golden]
  let leastIoU: Double
  let warmUp: WarmUp.Limits
  let seconds: Double
  let rounds: Int
  let stateEvery: Double
  let gate: ThermalGate?
  /// As it was sent.
  let source: JSONObject

  /// - Throws: `Fault` `bad-line` with the field's name, `bad-path`, `too-large`.
  init(_ fields: Fields) throws {
    source = fields.values
    id = try fields.job()
    label = try fields.text("label")
    format = try fields.text("format")
    runtime = try fields.optionalText("runtime")
    delegate = try fields.optionalText("delegate")
    threads = fields.has("threads") ? try fields.whole("threads", 1...1024) : nil
    encoder = try GraphFile(try fields.object("encoder"))
    decoder = try GraphFile(try fields.object("decoder"))
    model = try JobRequest.model(fields)
    frame = try Prompted(try fields.object("frame"))
    let golden = try fields.objects("golden", 0...Int.max)
    guard golden.count <= JobRequest.mostGolden else {
      throw Fault("too-large", "job.golden: \(golden.count) prompts; the limit is \(JobRequest.mostGolden)")
    }
    self.golden = try golden.map(Golden.init)
    leastIoU = try fields.number("least_iou", 0...1)
    warmUp = try WarmUp.Limits(try fields.object("warm_up"))
    let measure = try fields.object("measure")
    seconds = try measure.number("seconds", 0...JobRequest.longest)
    rounds = try measure.whole("rounds", 1...Int.max)
    stateEvery = try fields.number("state_every", Double.leastNonzeroMagnitude...JobRequest.longest)
    gate = fields.has("thermal_gate") ? try ThermalGate(try fields.object("thermal_gate")) : nil
    _ = try fields.whole("seed", 0...Int.max)  // nothing is random here
  }

  /// The same, as a job of its own that measures for other seconds.
  ///
  /// - Throws: `Fault` `bad-line` for more than a day.
  func again(seconds: Double) throws -> JobRequest {
    var changed = source
    changed["job"] = .text("again-\(UUID().uuidString.lowercased())")
    changed["label"] = .text("\(label), again for \(seconds) s")
    changed["measure"] = ["seconds": .number(seconds), "rounds": .whole(rounds)]
    return try JobRequest(Fields(changed, "job"))
  }

  private static func model(_ fields: Fields) throws -> ModelDescription {
    let picture = try fields.object("picture")
    let prompt = try fields.object("prompt")
    let mask = try fields.object("mask")
    let size = try picture.whole("size", 1...ModelDescription.PictureRule.largestSize)
    return ModelDescription(
      encoder: try graph(try fields.object("encoder")),
      decoder: try graph(try fields.object("decoder")),
      picture: .init(size: size, padRGB: try picture.numbers("pad_rgb", 3...3, 0...255)),
      prompt: .init(
        slots: try prompt.whole("slots", 1...ModelDescription.PromptRule.most),
        promptsPerCall: try prompt.whole("prompts_per_call", 1...ModelDescription.PromptRule.most),
        maskInput: try prompt.flag("mask_input")),
      mask: .init(
        lowResolution: try mask.whole("low_resolution", 1...size),
        threshold: try mask.number("threshold", -far...far),
        score: try mask.text("score", "iou or stability") { ["iou", "stability"].contains($0) },
        pointMasks: try mask.whole("point_masks", 3...4)))
  }

  private static func graph(_ fields: Fields) throws -> ModelDescription.Graph {
    .init(
      inputs: try fields.objects("inputs", 1...32).map(tensor),
      outputs: try fields.objects("outputs", 1...32).map(tensor))
  }

  private static func tensor(_ fields: Fields) throws -> TensorSpec {
    let name = try fields.text("name")
    let shape = try fields.wholes("shape", 1...8, 1...Int(Int32.max))
    guard let dtype = TensorSpec.DType(rawValue: try fields.text("dtype")) else {
      throw fields.wrong("dtype", "a type of numbers that this harness has")
    }
    guard TensorSpec.bytes(shape: shape, dtype: dtype) != nil else {
      throw Fault("too-large", "the tensor \(name) takes more than 512 MiB, or is no picture")
    }
    return TensorSpec(name: name, shape: shape, dtype: dtype, layout: try fields.text("layout"))
  }
}

/// A graph's file or folder, and its hash by the manifest.
struct GraphFile {
  let path: String
  let sha256: String

  init(_ fields: Fields) throws {
    path = try fields.path("path")
    sha256 = try fields.sha256("sha256")
  }
}

/// A picture and a prompt on it, in pixels of the picture.
struct Prompted {
  let image: String
  let prompt: Prompt

  init(_ fields: Fields) throws {
    image = try fields.path("image")
    let points = try fields.pairs("points", 1...1024, -JobRequest.far...JobRequest.far)
    let labels = try fields.wholes("labels", points.count...points.count, -1...3)
    prompt = Prompt(
      points: zip(points, labels).compactMap { place, label in
        Prompt.Label(rawValue: label).map { .init(x: place.0, y: place.1, label: $0) }
      })
  }
}

/// What PyTorch answered to a prompt: the mask's file, and which of the four it was.
struct Golden {
  let prompted: Prompted
  let mask: String
  let best: Int

  init(_ fields: Fields) throws {
    prompted = try Prompted(fields)
    mask = try fields.path("mask")
    best = try fields.whole("best", 0...3)
  }
}

/// The hottest that may start, and how long to wait for it, in seconds.
struct ThermalGate {
  private static let heat = ["nominal", "fair", "serious", "critical"]

  let thermal: String?
  let batteryCelsius: Double
  let wait: Double

  init(_ fields: Fields) throws {
    thermal =
      fields.has("thermal")
      ? try fields.text("thermal", ThermalGate.heat.joined(separator: ", ")) { ThermalGate.heat.contains($0) } : nil
    batteryCelsius =
      fields.has("battery_c") ? try fields.number("battery_c", -JobRequest.far...JobRequest.far) : JobRequest.far
    wait = try fields.number("wait", 0...24 * 3600)
  }

  /// Why a state keeps the gate shut; nil where it is open. What a device does not tell opens it.
  func shut(by state: JSONObject) -> String? {
    if let highest = thermal, let told = state["thermal"]?.text,
      let most = ThermalGate.heat.firstIndex(of: highest), let now = ThermalGate.heat.firstIndex(of: told), now > most
    {
      return "thermal state \(told)"
    }
    if let celsius = state["battery"]?.object?["celsius"]?.number, celsius > batteryCelsius {
      return "a battery of \(celsius) degrees"
    }
    return nil
  }
}
