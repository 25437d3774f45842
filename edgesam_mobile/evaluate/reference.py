"""The PyTorch model that a package was built from: what its artefacts are held against."""

from __future__ import annotations

from edgesam_mobile.errors import WeightsError
from edgesam_mobile.model.load import load_model, read_weights
from edgesam_mobile.model.sam import Sam
from edgesam_mobile.package.manifest import Manifest
from edgesam_mobile.weights.kept import kept
from edgesam_mobile.weights.registry import REGISTRY


def weights_source(manifest: Manifest, given: str | None, *, offline: bool = False) -> str:
    """The name or file of a package's weights.

    Args:
        given: where they are, as the user says; it is checked before a model is made of it.

    Raises:
        WeightsError: they are not at hand, or those that were given are others.
    """
    if given is not None:
        _, _, provenance = read_weights(given, offline=offline)
        _refuse_others(manifest, given, provenance.weights_sha256)
        return given
    if manifest.weights.name in REGISTRY:
        return manifest.weights.name
    copy = kept(manifest.weights.sha256)
    if copy is None:
        raise WeightsError(
            f"the weights that the package was built from ({manifest.weights.name}) are not at hand",
            hint="name them with --weights FILE",
        )
    return str(copy)


def reference_model(manifest: Manifest, source: str, *, upsample: str | None = None, offline: bool = False) -> Sam:
    """The model of :func:`weights_source`, with the up-sampling that was exported unless another is asked for.

    Raises:
        WeightsError: the weights are not those that the package was built from.
    """
    mode = upsample or manifest.upsample
    model = load_model(source, upsample=mode, image_size=manifest.picture.size, offline=offline)
    assert model.provenance is not None
    _refuse_others(manifest, source, model.provenance.weights_sha256)
    return model


def _refuse_others(manifest: Manifest, source: str, sha256: str) -> None:
    if sha256 != manifest.weights.sha256:
        raise WeightsError(
            f"{source} are not the weights that the package was built from", hint="name those with --weights FILE"
        )
