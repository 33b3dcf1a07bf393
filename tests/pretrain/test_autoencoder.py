"""The autoencoder's latents can be standardised without changing a picture."""

import torch

from icm_pipeline.pretrain.autoencoder import build_autoencoder, encode_portraits, standardise_latents


def test_standardised_latents_have_unit_channels_and_decode_to_the_same_pictures() -> None:
    model = build_autoencoder(seed=0).eval()
    pixels = torch.randint(0, 256, (12, 64, 64, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    with torch.no_grad():
        before = model.decode(encode_portraits(model, pixels)).sample
        raw = encode_portraits(model, pixels)
        standardise_latents(model, pixels)
        latents = encode_portraits(model, pixels)
        after = model.decode(latents).sample
    assert raw.std((0, 2, 3)).max() < 0.9 or raw.std((0, 2, 3)).min() > 1.1
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(8), atol=1e-3, rtol=0)
    torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)
