from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from agevi.nn.attention import AttentionLayer, Categories, FeatureTokens
from agevi.nn.transformer import FeatureTransformer, TabTransformer

SHAPE = {"n_token": 8, "n_heads": 2, "n_layers": 2, "n_hidden": [6], "activation": "elu", "dropout_rate": 0.0}


@pytest.mark.parametrize("masked", [False, True], ids=["all", "masked"])
@pytest.mark.parametrize("keeps", [False, True], ids=["fast", "weights"])
def test_a_layer_is_torchs_attention_and_a_perceptron(masked, keeps):
    torch.manual_seed(0)
    layer = AttentionLayer(8, 2, activation="gelu", dropout_rate=0.0).eval()
    reference = nn.MultiheadAttention(8, 2, batch_first=True).eval()
    with torch.no_grad():
        reference.in_proj_weight.copy_(layer.qkv.weight)
        reference.in_proj_bias.copy_(layer.qkv.bias)
        reference.out_proj.weight.copy_(layer.out.weight)
        reference.out_proj.bias.copy_(layer.out.bias)
    tokens = torch.randn(5, 7, 8)
    visible = torch.rand(5, 7) > 0.4
    visible[:, 0] = True
    normed = layer.norm(tokens)
    mixed, weights = reference(
        normed, normed, normed, key_padding_mask=~visible if masked else None, average_attn_weights=False
    )
    expected = tokens + mixed
    expected = expected + layer.feed(expected)
    kept = [] if keeps else None
    found = layer(tokens, visible if masked else None, kept)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    if keeps:
        torch.testing.assert_close(kept[0], weights, rtol=1e-4, atol=1e-6)


def test_every_category_has_a_row_and_an_unknown_one():
    tokens = Categories([2, 3], 4)
    assert tokens.table.shape == (7, 4)
    found = tokens(torch.tensor([[0, 3], [2, 0]]))
    torch.testing.assert_close(found, tokens.table[torch.tensor([[0, 6], [2, 3]])])


def test_tokens_are_sums_over_their_features():
    torch.manual_seed(0)
    tokens = FeatureTokens(11, 3, 4)
    of = torch.tensor([2, 0, 0, 2, 1, 2, 0, 2, 2, 0, 1])
    tokens.assign(of)
    z, measured = torch.randn(6, 11), torch.rand(6, 11) > 0.3
    z = z * measured
    tokens.of_share.data.normal_()
    found = tokens(tokens.units(z), tokens.shares(measured)).detach().numpy()
    for k in range(3):
        own = (of == k).numpy()
        share = measured.numpy()[:, own].mean(1)
        expected = z.numpy()[:, own] @ tokens.weight.detach().numpy()[own] + tokens.bias[k].detach().numpy()
        np.testing.assert_allclose(
            found[:, k], expected + share[:, None] * tokens.of_share[k].detach().numpy(), rtol=1e-4, atol=1e-5
        )


def test_tokens_are_arranged_after_weights_are_loaded():
    first, second = FeatureTokens(10, 2, 4), FeatureTokens(10, 2, 4)
    first.assign(torch.tensor([1, 0] * 5))
    second.load_state_dict(first.state_dict())
    z = torch.randn(3, 10)
    torch.testing.assert_close(second.units(z), first.units(z))


@pytest.mark.parametrize(
    "net",
    [
        pytest.param(lambda: FeatureTransformer(12, [2], n_tokens=4, **SHAPE), id="ft"),
        pytest.param(lambda: TabTransformer(12, [2, 3], **SHAPE), id="tab"),
    ],
)
def test_units_are_the_linear_map(net):
    made, z = net(), torch.randn(5, 12)
    torch.testing.assert_close(made.units(z), z @ made.weight().T, rtol=1e-4, atol=1e-5)


def test_tokens_that_are_not_visible_change_nothing():
    torch.manual_seed(0)
    net = FeatureTransformer(12, [2], n_tokens=4, **SHAPE).eval()
    shares = torch.tensor([[1.0, 0.5, 0.0, 0.0]])
    levels, line = torch.tensor([[1]]), torch.tensor([0.3])
    z, other = torch.randn(1, 12), torch.randn(1, 12)
    other[:, :6] = z[:, :6]  # tokens 0 and 1
    found = [net(net.units(v), levels, shares, line).latent for v in (z, other)]
    torch.testing.assert_close(found[0], found[1])
    assert not torch.allclose(found[0], net(net.units(z), levels, shares, line + 1).latent)
