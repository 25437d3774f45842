"""Distilling a SAM teacher into a mobile student: EdgeSAM's stages (arXiv 2312.06660, section 3)."""
