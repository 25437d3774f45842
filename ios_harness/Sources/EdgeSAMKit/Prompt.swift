/// What to segment: points and a box, in pixels of the picture, (0, 0) at its top left.
public struct Prompt: Sendable, Equatable {
  /// What a point says. Raw values are those of the decoder's `point_labels`.
  public enum Label: Int, Sendable, Codable {
    /// An empty slot; its place does not matter.
    case empty = -1
    /// Not on the object.
    case background = 0
    /// On the object.
    case foreground = 1
    /// A box's top left corner.
    case boxTopLeft = 2
    /// A box's bottom right corner.
    case boxBottomRight = 3
  }

  /// A place, and what it says.
  public struct Point: Sendable, Equatable {
    /// Pixels from the left.
    public var x: Double
    /// Pixels from the top.
    public var y: Double
    /// What the point says.
    public var label: Label

    /// A point, on the object unless said otherwise.
    public init(x: Double, y: Double, label: Label = .foreground) {
      self.x = x
      self.y = y
      self.label = label
    }
  }

  /// A box round the object.
  public struct Box: Sendable, Equatable {
    /// Left side, in pixels.
    public var left: Double
    /// Top side, in pixels.
    public var top: Double
    /// Right side, in pixels.
    public var right: Double
    /// Bottom side, in pixels.
    public var bottom: Double

    /// A box between these sides.
    public init(left: Double, top: Double, right: Double, bottom: Double) {
      self.left = left
      self.top = top
      self.right = right
      self.bottom = bottom
    }
  }

  /// Its points in order, a box as two of them.
  public var points: [Point]

  /// A prompt of points and, after them, a box.
  public init(points: [Point] = [], box: Box? = nil) {
    self.points = points
    if let box {
      self.points.append(Point(x: box.left, y: box.top, label: .boxTopLeft))
      self.points.append(Point(x: box.right, y: box.bottom, label: .boxBottomRight))
    }
  }

  /// Refuses places outside of a picture, empty boxes, and corners of boxes among the points.
  static func check(points: [Point], box: Box?, in picture: Picture) throws {
    let corners = box.map { [($0.left, $0.top), ($0.right, $0.bottom)] } ?? []
    for (x, y) in points.map({ ($0.x, $0.y) }) + corners {
      guard (0...Double(picture.width)).contains(x), (0...Double(picture.height)).contains(y) else {
        throw SegmentationError.invalidPrompt(
          "(\(x), \(y)) is outside of the picture, \(picture.width) x \(picture.height)")
      }
    }
    if let box, box.left >= box.right || box.top >= box.bottom {
      throw SegmentationError.invalidPrompt("the box is empty")
    }
    if points.contains(where: { $0.label == .boxTopLeft || $0.label == .boxBottomRight }) {
      throw SegmentationError.invalidPrompt("a corner of a box among the points")
    }
  }

  /// Fills `point_coords` (prompts x slots x 2) and `point_labels` (prompts x slots); the prompt is the first of the
  /// call. Where the graph takes mask prompts, its tensors keep the zeros that they are made with.
  func fill(coords: Tensor, labels: Tensor, rule: ModelDescription.PromptRule, geometry: Geometry) throws {
    guard points.count <= rule.slots else {
      throw SegmentationError.invalidPrompt("\(points.count) points for \(rule.slots) slots")
    }
    guard points.contains(where: { $0.label != .empty }) else {
      throw SegmentationError.invalidPrompt("nothing is prompted")
    }
    let places = coords.data.bindMemory(to: Float.self)
    let kinds = labels.data.bindMemory(to: Float.self)
    places.update(repeating: 0)
    kinds.update(repeating: Float(Label.empty.rawValue))
    for (index, point) in points.enumerated() {
      places[2 * index] = geometry.frameX(point.x)
      places[2 * index + 1] = geometry.frameY(point.y)
      kinds[index] = Float(point.label.rawValue)
    }
  }
}
