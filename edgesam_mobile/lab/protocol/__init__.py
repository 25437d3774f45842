"""The harness protocol (``docs/protocol.md``): its messages, readers of its streams, the desktop's side of it."""
