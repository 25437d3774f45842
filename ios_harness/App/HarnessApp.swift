import SwiftUI
import UIKit

/// The app: a live view of the job that a desktop runs, and a screen to try a model.
@main
struct HarnessApp: App {
  @StateObject private var service = HarnessService()
  @Environment(\.scenePhase) private var phase

  var body: some Scene {
    WindowGroup {
      TabView {
        LiveView(service: service)
          .tabItem { Label("Harness", systemImage: "gauge.with.needle") }
        TryItView()
          .tabItem { Label("Try it", systemImage: "hand.tap") }
      }
    }
    .onChange(of: phase, initial: true) {
      // A phone that sleeps suspends the app, and its sockets are gone.
      UIApplication.shared.isIdleTimerDisabled = phase == .active
      switch phase {
      case .active: service.start()
      case .background: service.stop()
      default: break
      }
    }
  }
}
