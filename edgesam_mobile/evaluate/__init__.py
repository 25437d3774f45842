"""How good masks are: metrics, and artefacts held against PyTorch."""
