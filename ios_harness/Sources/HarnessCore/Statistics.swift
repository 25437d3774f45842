/// What times say, as the desktop's statistics say it; intervals over launches are the desktop's alone.
public enum Statistics {
  /// The time that a share of all times does not exceed, between two of them in proportion (NumPy's `linear`).
  ///
  /// - Parameters:
  ///   - share: 0 to 1; 0.5 gives the median.
  ///   - times: in any order and unit.
  /// - Returns: nil where there are no times.
  public static func percentile(_ share: Double, of times: some Collection<Double>) -> Double? {
    guard !times.isEmpty else { return nil }
    let sorted = times.sorted()
    let place = min(max(share, 0), 1) * Double(sorted.count - 1)
    let below = Int(place)
    let above = min(below + 1, sorted.count - 1)
    return sorted[below] + (sorted[above] - sorted[below]) * (place - Double(below))
  }
}
