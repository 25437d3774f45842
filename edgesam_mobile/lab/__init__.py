"""Measuring artefacts: what to run, in which order, in which process, and what the numbers say."""
