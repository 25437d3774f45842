"""The two deployable graphs, one exporter a format, and the build that puts them into a package."""
