"""Architectures, strict loading, geometry and prediction in PyTorch."""

from edgesam_mobile.model.load import load_model
from edgesam_mobile.model.predictor import SamPredictor
from edgesam_mobile.model.registry import ARCHITECTURES, build_model, state_layout
from edgesam_mobile.model.sam import Sam

__all__ = ["ARCHITECTURES", "Sam", "SamPredictor", "build_model", "load_model", "state_layout"]
