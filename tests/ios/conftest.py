"""Where the tests of the iOS harness find Swift."""

from __future__ import annotations

import os

from edgesam_mobile.weights.fetch import cache_root

# Now: tests point the cache elsewhere afterwards, and must not fetch the compiler again.
os.environ.setdefault("EDGESAM_SWIFT_CACHE", str(cache_root()))
