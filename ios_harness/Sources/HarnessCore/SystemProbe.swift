import Dispatch
import Foundation

/// What the operating system tells of this device, on Apple's systems and on Linux.
///
/// Batteries it knows nothing of.
public struct SystemProbe: Probe {
  private let name: String
  private let version: String

  /// Creates a probe.
  ///
  /// - Parameters:
  ///   - name: of the harness.
  ///   - version: of the harness.
  public init(name: String, version: String) {
    self.name = name
    self.version = version
  }

  /// The harness, how it was built, and whether a debugger is attached.
  public func harness() -> JSONObject {
    #if DEBUG
      let build = "debug"
    #else
      let build = "release"
    #endif
    return [
      "name": .text(name), "version": .text(version), "build": .text(build), "debugger": .bool(System.isDebugged()),
    ]
  }

  /// The device; its `id` is not known here.
  public func device() -> JSONObject {
    let version = ProcessInfo.processInfo.operatingSystemVersion
    let isLinux = System.kind.os == "Linux"
    return [
      "id": nil,
      "class": .text(System.kind.device),
      "maker": isLinux ? nil : "Apple",
      "model": JSON(System.model()),
      "os": .text(System.kind.os),
      "os_version": isLinux
        ? JSON(System.names()?.release)
        : .text("\(version.majorVersion).\(version.minorVersion).\(version.patchVersion)"),
      "cores": .whole(ProcessInfo.processInfo.activeProcessorCount),
      "memory_bytes": .whole(Int(clamping: ProcessInfo.processInfo.physicalMemory)),
      "abi": JSON(System.names()?.machine),
    ]
  }

  /// Heat, low-power mode, memory and clocks, as far as the system tells.
  public func state() -> JSONObject {
    System.state()
  }

  /// Nanoseconds since the system was started.
  public func nanos() -> UInt64 {
    DispatchTime.now().uptimeNanoseconds
  }

  /// Waits.
  public func sleep(_ seconds: Double) {
    Thread.sleep(forTimeInterval: seconds)
  }
}

/// What each operating system tells in its own way.
enum System {
  /// Names of kernel and processor, as `uname` gives them.
  static func names() -> (release: String, machine: String)? {
    var names = utsname()
    guard uname(&names) == 0 else {
      return nil
    }
    return (text(names.release), text(names.machine))
  }

  private static func text<Characters>(_ characters: Characters) -> String {
    withUnsafeBytes(of: characters) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
  }
}

#if canImport(Darwin)
  extension System {
    #if targetEnvironment(simulator)
      static let kind = (device: "emulator", os: "iOS")
    #elseif os(iOS)
      static let kind = (device: "ios", os: "iOS")
    #else
      static let kind = (device: "host", os: "macOS")
    #endif

    /// Apple's name of the model, such as `iPhone14,7`.
    static func model() -> String? {
      var size = 0
      guard sysctlbyname("hw.machine", nil, &size, nil, 0) == 0, size > 1 else {
        return nil
      }
      var name = [UInt8](repeating: 0, count: size)
      guard sysctlbyname("hw.machine", &name, &size, nil, 0) == 0 else {
        return nil
      }
      return String(decoding: name.prefix { $0 != 0 }, as: UTF8.self)
    }

    static func isDebugged() -> Bool {
      var process = kinfo_proc()
      var size = MemoryLayout<kinfo_proc>.stride
      var query = [CTL_KERN, KERN_PROC, KERN_PROC_PID, getpid()]
      return sysctl(&query, 4, &process, &size, nil, 0) == 0 && process.kp_proc.p_flag & P_TRACED != 0
    }

    static func state() -> JSONObject {
      let process = ProcessInfo.processInfo
      let heat: JSON
      switch process.thermalState {
      case .nominal: heat = "nominal"
      case .fair: heat = "fair"
      case .serious: heat = "serious"
      case .critical: heat = "critical"
      @unknown default: heat = nil
      }
      return ["thermal": heat, "low_power": .bool(process.isLowPowerModeEnabled)]
    }
  }
#else
  extension System {
    static let kind = (device: "host", os: "Linux")

    static func model() -> String? {
      nil
    }

    static func isDebugged() -> Bool {
      (ProcFiles.number("/proc/self/status", "TracerPid:") ?? 0) != 0
    }

    static func state() -> JSONObject {
      [
        "clocks_khz": ProcFiles.clocks("/sys/devices/system/cpu").map { .list($0.map { JSON($0) }) } ?? nil,
        "memory": [
          "bytes": JSON(ProcFiles.number("/proc/self/status", "VmRSS:").map { 1024 * $0 }),
          "peak_bytes": JSON(ProcFiles.number("/proc/self/status", "VmHWM:").map { 1024 * $0 }),
        ],
      ]
    }
  }
#endif

/// What Linux tells in files; nil where a file is absent or may not be read.
enum ProcFiles {
  /// The number of a line such as `VmRSS: 12 kB`.
  static func number(_ path: String, _ name: String) -> Int? {
    guard let text = try? String(contentsOfFile: path, encoding: .utf8) else {
      return nil
    }
    for line in text.split(separator: "\n") {
      let words = line.split(whereSeparator: \.isWhitespace)
      if words.count > 1, words[0] == name {
        return Int(words[1])
      }
    }
    return nil
  }

  /// The clock of each core in kHz, nil for one that does not tell; nil if none does.
  static func clocks(_ cpus: String) -> [Int?]? {
    var clocks: [Int?] = []
    while FileManager.default.fileExists(atPath: "\(cpus)/cpu\(clocks.count)") {
      let text = try? String(contentsOfFile: "\(cpus)/cpu\(clocks.count)/cpufreq/scaling_cur_freq", encoding: .utf8)
      clocks.append(text.flatMap { Int($0.trimmingCharacters(in: .whitespacesAndNewlines)) })
    }
    return clocks.contains { $0 != nil } ? clocks : nil
  }
}
