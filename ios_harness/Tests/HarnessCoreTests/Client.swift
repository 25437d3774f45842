import Foundation
import XCTest

@testable import HarnessCore

/// A desktop, as far as a socket goes.
final class Client {
  private let descriptor: Int32
  private var received = Lines()

  init(port: UInt16, address: String = "127.0.0.1") throws {
    #if canImport(Darwin)
      descriptor = socket(AF_INET, SOCK_STREAM, 0)
    #else
      descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    #endif
    var place = sockaddr_in()
    place.sin_family = sa_family_t(AF_INET)
    place.sin_port = port.bigEndian
    inet_pton(AF_INET, address, &place.sin_addr)
    let isThere = withUnsafePointer(to: &place) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        connect(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
    guard isThere else {
      throw SystemError()
    }
    #if canImport(Darwin)
      var silent: Int32 = 1  // a hang-up is an error to be caught there too, and no signal
      setsockopt(descriptor, SOL_SOCKET, SO_NOSIGPIPE, &silent, socklen_t(MemoryLayout<Int32>.size))
    #endif
    var limit = timeval(tv_sec: 10, tv_usec: 0)
    setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
  }

  deinit {
    close(descriptor)
  }

  func send(_ bytes: [UInt8]) throws {
    var left = bytes[...]
    while !left.isEmpty {
      let count = left.withUnsafeBytes { Foundation.send(descriptor, $0.baseAddress, $0.count, Client.silently) }
      guard count > 0 else {
        throw SystemError()
      }
      left = left.dropFirst(count)
    }
  }

  func send(_ object: JSONObject) throws {
    try send(Array("\(JSONText.of(object))\n".utf8))
  }

  /// The next event, or nil where the harness has hung up.
  func next() throws -> JSONObject? {
    while true {
      if let line = try received.next() {
        return try JSONReader.object(line)
      }
      var piece = [UInt8](repeating: 0, count: 1 << 16)
      let count = recv(descriptor, &piece, piece.count, 0)
      guard count >= 0 || errno == ECONNRESET else {
        throw SystemError()  // it says nothing
      }
      guard count > 0 else {
        return nil
      }
      received.feed(Array(piece[..<count]))
    }
  }

  /// Events up to and with the first of a type.
  func events(upTo type: String) throws -> [JSONObject] {
    var events: [JSONObject] = []
    while let event = try next() {
      events.append(event)
      if event["type"] == .text(type) {
        break
      }
    }
    return events
  }

  #if canImport(Darwin)
    private static let silently: Int32 = 0
  #else
    private static let silently = Int32(MSG_NOSIGNAL)
  #endif
}
