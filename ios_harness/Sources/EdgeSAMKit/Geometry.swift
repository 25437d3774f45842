/// Between the pixels of a picture and the square frame that the encoder sees, longest side first, top left.
package struct Geometry: Sendable, Equatable {
  package let width: Int
  package let height: Int
  package let resizedWidth: Int
  package let resizedHeight: Int

  /// - Parameter size: side of the frame in pixels.
  package init(width: Int, height: Int, size: Int) {
    self.width = width
    self.height = height
    let scale = Double(size) / Double(max(width, height))
    resizedWidth = max(1, Int(Double(width) * scale + 0.5))
    resizedHeight = max(1, Int(Double(height) * scale + 0.5))
  }

  /// A place from the picture, in pixels, to the frame, in pixels.
  package func frameX(_ x: Double) -> Float {
    Float(x * (Double(resizedWidth) / Double(width)))
  }

  /// As ``frameX(_:)``.
  package func frameY(_ y: Double) -> Float {
    Float(y * (Double(resizedHeight) / Double(height)))
  }
}
