import Foundation

/// A TCP socket on the loopback interface.
///
/// It is closed when nobody holds it any more, so that no thread ever uses another file under its number.
final class Socket: @unchecked Sendable {
  private static let slice: Int32 = 50  // milliseconds between two looks at whether it is over
  private static let stuck = 60.0  // seconds that a desktop may take nothing

  private let descriptor: Int32

  private init(_ descriptor: Int32) {
    self.descriptor = descriptor
    _ = fcntl(descriptor, F_SETFD, FD_CLOEXEC)
    _ = fcntl(descriptor, F_SETFL, fcntl(descriptor, F_GETFL) | O_NONBLOCK)
    #if canImport(Darwin)
      set(SOL_SOCKET, SO_NOSIGPIPE)
    #endif
  }

  deinit {
    close(descriptor)
  }

  /// A socket that listens on 127.0.0.1.
  ///
  /// - Parameter port: 0 for any that is free.
  /// - Throws: `Fault` `internal` where the port is taken.
  static func listening(on port: UInt16) throws -> Socket {
    let descriptor = socket(AF_INET, streamType, 0)
    guard descriptor >= 0 else {
      throw SystemError().fault("internal", "no socket")
    }
    let listener = Socket(descriptor)
    listener.set(SOL_SOCKET, SO_REUSEADDR)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_port = port.bigEndian
    address.sin_addr.s_addr = UInt32(INADDR_LOOPBACK).bigEndian
    let isBound = withUnsafePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, socklen_t(MemoryLayout<sockaddr_in>.size)) == 0
      }
    }
    guard isBound, listen(descriptor, 8) == 0 else {
      throw SystemError().fault("internal", "cannot listen on port \(port)")
    }
    return listener
  }

  /// The port of this side.
  var port: UInt16 {
    var address = sockaddr_in()
    var size = socklen_t(MemoryLayout<sockaddr_in>.size)
    _ = withUnsafeMutablePointer(to: &address) {
      $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { getsockname(descriptor, $0, &size) }
    }
    return UInt16(bigEndian: address.sin_port)
  }

  /// The next connection, or nil where none comes for a moment.
  ///
  /// - Throws: `SystemError` where the system has taken the socket away, as from an app that was suspended.
  func accept() throws -> Socket? {
    guard try waits(for: POLLIN) else {
      return nil
    }
    let connection = Foundation.accept(descriptor, nil, nil)
    guard connection >= 0 else {
      if [EAGAIN, EINTR, ECONNABORTED, EMFILE, ENFILE].contains(errno) {
        return nil
      }
      throw SystemError()
    }
    let socket = Socket(connection)
    socket.set(Int32(IPPROTO_TCP), TCP_NODELAY)
    return socket
  }

  /// What has come, or nil where nothing comes for a moment; empty where the other side has left.
  ///
  /// - Throws: `SystemError` where the connection is broken.
  func receive() throws -> [UInt8]? {
    guard try waits(for: POLLIN) else {
      return nil
    }
    var piece = [UInt8](repeating: 0, count: 1 << 16)
    let count = recv(descriptor, &piece, piece.count, 0)
    guard count >= 0 else {
      if errno == EAGAIN || errno == EINTR {
        return nil
      }
      throw SystemError()
    }
    return Array(piece[..<count])
  }

  /// Sends bytes, however slowly the other side reads, as long as `goesOn` says so.
  ///
  /// - Throws: `SystemError` where the connection is broken, nothing was taken for a minute, or it is over.
  func send(_ bytes: ArraySlice<UInt8>, while goesOn: () -> Bool) throws {
    var left = bytes
    var taken = DispatchTime.now()
    while !left.isEmpty {
      guard goesOn(), seconds(since: taken) < Socket.stuck else {
        throw SystemError(ETIMEDOUT)
      }
      guard try waits(for: POLLOUT) else {
        continue
      }
      let count = left.withUnsafeBytes { Foundation.send(descriptor, $0.baseAddress, $0.count, silently) }
      if count > 0 {
        left = left.dropFirst(count)
        taken = .now()
      } else if errno != EAGAIN, errno != EINTR {
        throw SystemError()
      }
    }
  }

  /// Ends the conversation so that what was sent still arrives: what the other side still sends is taken and dropped,
  /// for half a second at most.
  func hangUp() {
    shutdown(descriptor, Int32(SHUT_WR))
    let began = DispatchTime.now()
    while seconds(since: began) < 0.5, let rest = try? receive() ?? [0], !rest.isEmpty {}
    shutdown(descriptor, Int32(SHUT_RDWR))
  }

  private func waits(for event: Int32) throws -> Bool {
    var waiting = pollfd(fd: descriptor, events: Int16(event), revents: 0)
    let count = poll(&waiting, 1, Socket.slice)
    guard count >= 0 || errno == EINTR else {
      throw SystemError()
    }
    return count > 0
  }

  private func set(_ level: Int32, _ option: Int32) {
    var on: Int32 = 1
    setsockopt(descriptor, level, option, &on, socklen_t(MemoryLayout<Int32>.size))
  }
}

/// Seconds that have passed.
func seconds(since begin: DispatchTime) -> Double {
  Double(DispatchTime.now().uptimeNanoseconds - begin.uptimeNanoseconds) / 1e9
}

// Whoever writes to a broken connection is to get an error, not a signal; on Darwin an option of the socket sees to that.
#if canImport(Darwin)
  private let streamType = SOCK_STREAM
  private let silently: Int32 = 0
#else
  private let streamType = Int32(SOCK_STREAM.rawValue)
  private let silently = Int32(MSG_NOSIGNAL)
#endif
