"""Running artefacts on this machine: one session class a runtime, one predictor over all of them."""
