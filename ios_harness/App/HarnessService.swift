import Combine
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
  private var server: Server?
  private var isWanted = false

  let probe = AppleProbe(
    system: SystemProbe(name: "EdgeSAMHarness", version: Bundle.main.shortVersion),
    id: UIDevice.current.identifierForVendor?.uuidString, battery: HarnessService.battery)
  private lazy var feed = LiveFeed { [weak self] run in
    // By the queue, which keeps their order.
    DispatchQueue.main.async { MainActor.assumeIsolated { self?.run = run } }
  }

  /// Begins to listen, as soon as the server before has ended.
  func start() {
    isWanted = true
    guard server == nil else { return }
    UIDevice.current.isBatteryMonitoringEnabled = true
    do {
      let folder = URL.documentsDirectory.appendingPathComponent("harness", isDirectory: true)
      let server = try Server(
        folder: folder, runtimes: AppRuntimes(), probe: probe, port: Self.port, observer: feed)
      self.server = server
      listening = true
      problem = nil
      let thread = Thread {
        do {
          try server.run()
          Task { @MainActor in self.ended(nil) }
        } catch {
          Task { @MainActor in self.ended(error) }
        }
      }
      thread.name = "harness"
      thread.start()
    } catch {
      problem = "\(error)"
    }
  }

  /// Ends the job that runs, and stops listening: an app in the background has not the phone that it is to measure, and
  /// its sockets are taken away when it is suspended.
  func stop() {
    isWanted = false
    server?.stop()
  }

  /// Runs the last job again for ten minutes, without a desktop.
  func sustain() {
    do {
      try server?.again(seconds: 600)
      problem = nil
    } catch {
      problem = "\(error)"
    }
  }

  private func ended(_ error: Error?) {
    server = nil
    listening = false
    problem = error.map { "\($0)" }
    if isWanted { start() }
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
