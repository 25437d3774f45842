extension Picture {
  /// How pixels lie that a camera wrote as it was held. Raw values are those of EXIF, and of Image I/O's
  /// `CGImagePropertyOrientation`; those of UIKit's `UIImage.Orientation` are others.
  public enum Orientation: Int, CaseIterable, Sendable {
    /// As they are seen.
    case up = 1
    /// Left and right exchanged.
    case upMirrored
    /// Upside down.
    case down
    /// Top and bottom exchanged.
    case downMirrored
    /// Rows and columns exchanged.
    case leftMirrored
    /// To be turned clockwise: an iPhone that was held upright.
    case right
    /// Rows and columns exchanged, and upside down.
    case rightMirrored
    /// To be turned counter-clockwise.
    case left
  }

  /// The picture as it is seen.
  ///
  /// - Parameter orientation: how its pixels lie.
  public func upright(from orientation: Orientation) -> Picture {
    guard orientation != .up else { return self }
    let (right, below) = (1, width)  // steps from a pixel to its neighbours
    let (lastRight, lastBelow) = (width - 1, (height - 1) * width)
    let (start, along, down): (Int, Int, Int)
    switch orientation {
    case .up: (start, along, down) = (0, right, below)
    case .upMirrored: (start, along, down) = (lastRight, -right, below)
    case .down: (start, along, down) = (lastRight + lastBelow, -right, -below)
    case .downMirrored: (start, along, down) = (lastBelow, right, -below)
    case .leftMirrored: (start, along, down) = (0, below, right)
    case .right: (start, along, down) = (lastBelow, -below, right)
    case .rightMirrored: (start, along, down) = (lastRight + lastBelow, -below, -right)
    case .left: (start, along, down) = (lastRight, below, -right)
    }
    let (columns, rows) = orientation.rawValue > 4 ? (height, width) : (width, height)
    return Picture(turned: rgb, width: columns, height: rows, start: start, along: along, down: down)
  }

  private init(turned rgb: [UInt8], width: Int, height: Int, start: Int, along: Int, down: Int) {
    self.width = width
    self.height = height
    self.rgb = [UInt8](unsafeUninitializedCapacity: rgb.count) { target, count in
      rgb.withUnsafeBufferPointer { source in
        var at = 0
        for y in 0..<height {
          var from = 3 * (start + y * down)
          for _ in 0..<width {
            target[at] = source[from]
            target[at + 1] = source[from + 1]
            target[at + 2] = source[from + 2]
            at += 3
            from += 3 * along
          }
        }
      }
      count = rgb.count
    }
  }
}
