import Charts
import Combine
import Foundation
import HarnessCoreML
import SwiftUI

/// The job that runs: frames a second against 30, the curve of its frames, heat, and what spoils the numbers.
struct LiveView: View {
  @ObservedObject var service: HarnessService
  @State private var savesPower = ProcessInfo.processInfo.isLowPowerModeEnabled
  private let powerChanges = NotificationCenter.default.publisher(for: .NSProcessInfoPowerStateDidChange)
    .receive(on: DispatchQueue.main)

  var body: some View {
    NavigationStack {
      List {
        Section {
          rate
          curve
        }
        Section {
          LabeledContent(
            "Desktop", value: service.listening ? "waiting on port \(HarnessService.port)" : "not listening")
          LabeledContent("Job", value: service.run.job ?? "none yet")
          LabeledContent("Phase", value: service.run.ended ?? service.run.phase)
          LabeledContent("Thermal state", value: service.run.thermal ?? "unknown")
          if let p90 = service.run.p90 {
            let milliseconds = p90.formatted(.number.precision(.fractionLength(1)))
            LabeledContent("p90 of the last frames", value: "\(milliseconds) ms")
          }
          LabeledContent("Measured", value: "\(Int(service.run.measured)) s")
          if let slowdown = service.run.slowdown {
            let times = slowdown.formatted(.number.precision(.fractionLength(2)))
            LabeledContent("Frames against the first ones", value: "\(times) x as long")
          }
        }
        Section {
          Button("Run the last job for 10 minutes") { service.sustain() }
            .disabled(!service.listening || service.run.isRunning)
        } footer: {
          Text("No computer is needed for it. To end it early, leave the app.")
        }
        let spoilers = service.run.spoilers(harness: service.probe.harness(), savesPower: savesPower)
        if !spoilers.isEmpty {
          Section("These numbers do not count") {
            ForEach(spoilers, id: \.self) {
              Label($0, systemImage: "exclamationmark.triangle").foregroundStyle(.orange)
            }
          }
        }
        if let remark = service.problem ?? service.run.remark {
          Section { Text(remark).font(.footnote) }
        }
      }
      .navigationTitle("EdgeSAM harness")
      .onReceive(powerChanges) { _ in savesPower = ProcessInfo.processInfo.isLowPowerModeEnabled }
    }
  }

  private var rate: some View {
    HStack(alignment: .firstTextBaseline) {
      Text(service.run.framesPerSecond.map { $0.formatted(.number.precision(.fractionLength(1))) } ?? "–")
        .font(.system(size: 56, weight: .semibold).monospacedDigit())
        .foregroundStyle((service.run.framesPerSecond ?? 30) < 30 ? Color.orange : Color.primary)
      Text("frames a second, of the last frames").foregroundStyle(.secondary)
    }
  }

  private var curve: some View {
    Chart {
      ForEach(Array(service.run.frames.enumerated()), id: \.offset) { frame in
        LineMark(x: .value("Frame", frame.offset), y: .value("ms", frame.element))
      }
      RuleMark(y: .value("ms", LiveRun.limit))
        .lineStyle(StrokeStyle(dash: [4]))
        .annotation(alignment: .leading) { Text("30 frames a second").font(.caption2) }
    }
    .chartYAxisLabel("ms a frame")
    .frame(height: 180)
  }
}
