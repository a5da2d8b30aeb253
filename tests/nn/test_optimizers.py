from __future__ import annotations

import copy

import pytest
import torch

from agevi.nn.optimizers import OPTIMIZERS
from agevi.nn.products import store_by_input


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_steps_are_those_of_torch_and_copy_nothing(name):
    torch.manual_seed(0)
    plain = torch.nn.Sequential(torch.nn.Linear(6, 4), torch.nn.Linear(4, 1))
    stored = copy.deepcopy(plain)
    store_by_input(stored[0])
    x, target = torch.randn(20, 6), torch.randn(20, 1)
    kwargs = {"lr": 0.1, "weight_decay": 0.05, "fused": True}
    ours = OPTIMIZERS[name](stored.parameters(), **kwargs)
    theirs = getattr(torch.optim, name)(plain.parameters(), **kwargs)

    def closure(net, optimizer):
        optimizer.zero_grad()
        loss = (net(x) - target).square().mean()
        loss.backward()
        return loss

    first = stored[0].weight.data_ptr()
    for _ in range(4):
        loss = ours.step(lambda: closure(stored, ours))
        assert loss.item() == pytest.approx(closure(plain, theirs).item(), rel=1e-5)
        theirs.step()
    for a, b in zip(stored.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert a.grad.shape == a.shape
    assert stored[0].weight.data_ptr() == first
    assert stored[0].weight.t().is_contiguous()
    moment = ours.state[stored[0].weight]["exp_avg"]
    assert moment.t().is_contiguous()  # else the fused step would copy it
    assert torch.allclose(moment, theirs.state[plain[0].weight]["exp_avg"], atol=1e-6)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_gradients_and_moments_in_another_order_in_memory_are_read_by_their_place(name):
    torch.manual_seed(0)
    plain = torch.nn.Linear(6, 4)
    stored = store_by_input(copy.deepcopy(plain))
    theirs = getattr(torch.optim, name)(plain.parameters(), lr=0.1, fused=True)
    ours = OPTIMIZERS[name](stored.parameters(), lr=0.1, fused=True)
    for step in range(3):
        for layer, optimizer in ((plain, theirs), (stored, ours)):
            layer.weight.grad = (step + torch.arange(24.0)).reshape(4, 6)
            optimizer.step()
        assert torch.allclose(stored.weight, plain.weight, atol=1e-6)
        ours.load_state_dict(copy.deepcopy(theirs.state_dict()))  # else they would share moments


def test_parameters_are_put_back_when_a_step_fails():
    layer = store_by_input(torch.nn.Linear(6, 4))
    optimizer = OPTIMIZERS["Adam"](layer.parameters(), fused=True)
    layer(torch.ones(2, 6)).sum().backward()
    optimizer.state[layer.weight] = {"step": "not a number"}
    with pytest.raises(KeyError):
        optimizer.step()
    assert layer.weight.shape == layer.weight.grad.shape == (4, 6)


@pytest.mark.parametrize("name", ["Adam", "AdamW"])
def test_hooks_run_once_around_a_step_and_see_weights_in_shape(name):
    getattr(torch.optim, name)([torch.zeros(1, requires_grad=True)])  # from then on torch hooks its own class too
    layer = store_by_input(torch.nn.Linear(6, 4))
    optimizer = OPTIMIZERS[name](layer.parameters(), fused=True)
    seen = []
    for hook in (optimizer.register_step_pre_hook, optimizer.register_step_post_hook):
        hook(lambda *_: seen.append(tuple(layer.weight.shape)))
    layer(torch.ones(2, 6)).sum().backward()
    optimizer.step()
    assert seen == [(4, 6), (4, 6)]
