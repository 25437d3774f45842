import Foundation
import HarnessCore
import MadeUp

// A harness of which everything is real but the runtime, for tests of the desktop:
// harness-made-up --folder FOLDER [--port PORT] [--pace SECONDS] [--idle SECONDS]
// It prints its port in one line of JSON, then serves until its standard input or its process ends.

var options: [String: String] = [:]
let words = Array(CommandLine.arguments.dropFirst())
for at in stride(from: 0, to: words.count - 1, by: 2) {
  options[words[at]] = words[at + 1]
}
let runtimes = MadeUpRuntimes()
runtimes.pace = Double(options["--pace"] ?? "0") ?? 0

do {
  let server = try Server(
    folder: URL(fileURLWithPath: options["--folder"] ?? ""), runtimes: runtimes,
    probe: SystemProbe(name: "made-up harness of the tests", version: "0"),
    port: UInt16(options["--port"] ?? "0") ?? 0, idle: Double(options["--idle"] ?? "60") ?? 60)
  Thread.detachNewThread {
    while !FileHandle.standardInput.availableData.isEmpty {}
    server.stop()
  }
  print("{\"port\": \(server.port)}")
  fflush(stdout)
  try server.run()
} catch {
  FileHandle.standardError.write(Data("\(error)\n".utf8))
  exit(2)
}
