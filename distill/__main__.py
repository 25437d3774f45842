"""``torchrun … -m distill RECIPE -o RUN``: the command ``edgesam-mobile distill``, in each of many processes."""

from __future__ import annotations

import sys

from edgesam_mobile.cli import app

if __name__ == "__main__":
    app(args=["distill", *sys.argv[1:]], prog_name="python -m distill")
