import EdgeSAMKit
import Foundation
import HarnessCore
import HarnessCoreML
import UIKit

#if canImport(ExecuTorchRunner)
  import ExecuTorchRunner
#endif

/// The harness's server, and what the screen shows of it.
@MainActor
final class HarnessService: ObservableObject {
  /// Where a desktop looks for it, over the cable.
  static let port: UInt16 = 8765

  @Published private(set) var run = LiveRun()
  @Published private(set) var problem: String?
  @Published private(set) var listening = false

  let probe = AppleProbe(
    system: SystemProbe(name: "EdgeSAMHarness", version: Bundle.main.shortVersion),
    id: UIDevice.current.identifierForVendor?.uuidString, battery: HarnessService.battery)
  private lazy var relay = Relay { [weak self] event in self?.run.take(event) }

  /// Begins to listen; again, where the system took the socket away.
  func start() {
    guard !listening else { return }
    UIDevice.current.isBatteryMonitoringEnabled = true
    do {
      let folder = URL.documentsDirectory.appendingPathComponent("harness", isDirectory: true)
      let server = try Server(
        folder: folder, runtimes: AppRuntimes(), probe: probe, port: Self.port, observer: relay)
      listening = true
      problem = nil
      let thread = Thread {
        do {
          try server.run()
          Task { @MainActor in self.listening = false }
        } catch {
          Task { @MainActor in self.lost(error) }
        }
      }
      thread.name = "harness"
      thread.start()
    } catch {
      problem = "\(error)"
    }
  }

  private func lost(_ error: Error) {
    listening = false
    if UIApplication.shared.applicationState == .active {
      start()
    } else {
      problem = "\(error)"
    }
  }

  /// Called on the job's thread, never within what is timed.
  private nonisolated static func battery() -> AppleProbe.Battery? {
    DispatchQueue.main.sync {
      MainActor.assumeIsolated {
        let device = UIDevice.current
        guard device.batteryState != .unknown, device.batteryLevel >= 0 else { return nil }
        return AppleProbe.Battery(
          level: Double(device.batteryLevel), charging: device.batteryState != .unplugged)
      }
    }
  }
}

/// Brings events from the job's thread to the screen's.
private final class Relay: JobObserver {
  private let show: @MainActor @Sendable (JSONObject) -> Void

  init(_ show: @escaping @MainActor @Sendable (JSONObject) -> Void) {
    self.show = show
  }

  func event(_ event: JSONObject) {
    let show = show
    // By the queue, which keeps their order.
    DispatchQueue.main.async { MainActor.assumeIsolated { show(event) } }
  }
}

/// Core ML, and ExecuTorch where its package was added to the app.
private struct AppRuntimes: Runtimes {
  #if canImport(ExecuTorchRunner)
    private let parts: [Runtimes] = [CoreMLRuntimes(), ExecuTorchRuntimes()]
  #else
    private let parts: [Runtimes] = [CoreMLRuntimes()]
  #endif

  var all: [RuntimeInfo] { parts.flatMap(\.all) }

  func runner(format: String, runtime: String?, delegate: String?, threads: Int?) throws -> GraphRunner {
    let chosen = try RuntimeInfo.choose(from: all, format: format, runtime: runtime, delegate: delegate)
    let part = parts.first { $0.all.contains(chosen) } ?? parts[0]
    return try part.runner(format: format, runtime: chosen.name, delegate: delegate, threads: threads)
  }
}

extension Bundle {
  fileprivate var shortVersion: String {
    infoDictionary?["CFBundleShortVersionString"] as? String ?? "0"
  }
}
