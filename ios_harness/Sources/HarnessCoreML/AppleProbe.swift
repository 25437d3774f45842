import EdgeSAMKit
import Foundation
import HarnessCore

/// What ``SystemProbe`` tells, and what an app knows of its phone besides: its battery, its id and its memory.
public struct AppleProbe: Probe {
  /// A battery, as far as a phone tells. iPhones do not tell its temperature.
  public struct Battery: Sendable {
    /// 0 to 1.
    public let level: Double
    /// Whether it is being charged.
    public let charging: Bool

    /// A battery of that level.
    public init(level: Double, charging: Bool) {
      self.level = level
      self.charging = charging
    }
  }

  private let system: SystemProbe
  private let id: String?
  private let battery: @Sendable () -> Battery?

  /// Creates a probe.
  ///
  /// - Parameters:
  ///   - system: tells everything else.
  ///   - id: the device's, or nil.
  ///   - battery: is called on the job's thread; nil where the phone does not tell.
  public init(system: SystemProbe, id: String?, battery: @escaping @Sendable () -> Battery?) {
    self.system = system
    self.id = id
    self.battery = battery
  }

  /// As the system tells it.
  public func harness() -> JSONObject { system.harness() }

  /// As the system tells it, with the device's id.
  public func device() -> JSONObject {
    var device = system.device()
    device.merge(["id": JSON(id)])
    return device
  }

  /// As the system tells it, with battery and memory.
  public func state() -> JSONObject {
    var state = system.state()
    if let battery = battery() {
      state.merge(["battery": ["level": .number(battery.level), "charging": .bool(battery.charging)]])
    }
    if let memory = Footprint.now() {
      state.merge(["memory": ["bytes": .whole(memory.bytes), "peak_bytes": .whole(memory.peakBytes)]])
    }
    return state
  }

  /// The system's clock.
  public func nanos() -> UInt64 { system.nanos() }

  /// Waits.
  public func sleep(_ seconds: Double) { system.sleep(seconds) }
}

/// What the system counts as this app's memory, and ends it for.
enum Footprint {
  static func now() -> (bytes: Int, peakBytes: Int)? {
    #if canImport(Darwin)
      var info = task_vm_info_data_t()
      var count = mach_msg_type_number_t(MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size)
      let status = withUnsafeMutablePointer(to: &info) { pointer in
        pointer.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
          task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
        }
      }
      guard status == KERN_SUCCESS else { return nil }
      return (Int(clamping: info.phys_footprint), Int(clamping: info.ledger_phys_footprint_peak))
    #else
      return nil
    #endif
  }
}
