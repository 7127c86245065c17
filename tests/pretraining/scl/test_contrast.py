"""How contrasts are named; what their losses are is tested with SCL."""

from torchrec_mm.pretraining.scl.contrast import Contrast


def test_a_contrast_is_named_by_its_space_or_by_both():
    assert Contrast("fused", "fused").name == "fused"
    assert Contrast("text", "image").name == "text_to_image"
