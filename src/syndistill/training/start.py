"""A network before its first step: from its configuration, a seed, a saved network's weights."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import BeforeValidator, SerializeAsAny

from syndistill.errors import SyndistillError
from syndistill.files.families import Dials, dials_of
from syndistill.models.contract import DecoderNetwork
from syndistill.models.gru import LocalGru
from syndistill.models.networks import load_network, weights_hash
from syndistill.models.warm_start import (
    can_begin,
    can_gain_frame,
    can_widen,
    carried_over,
    forgets_parities,
    of_events_alone,
    widened,
    with_frame,
)
from syndistill.training.config import DataConfig


def _dials(value: Any) -> Any:
    try:
        return dials_of(value) if isinstance(value, dict) else value
    except SyndistillError as error:  # of pydantic's kind, so that it is told with the key that holds the config
        raise ValueError(str(error)) from None


AnyDials = Annotated[SerializeAsAny[Dials], BeforeValidator(_dials)]


def start_weights(network: DecoderNetwork, path: str, any_distance: bool = False) -> str:
    """Copy a saved network's weights in; returns their hash. Refuses another architecture, but for a GRU of narrower
    states, which goes on answering as it did, for a network without a frame memory, which begins a fresh one, and for a
    local GRU that read parities, which forgets them.

    any_distance: also take the same architecture of another distance or not turned, as far as its weights carry over.
    """
    found, _ = load_network(path)
    of = weights_hash(found)
    if forgets_parities(found, network):
        found = of_events_alone(cast(LocalGru, found))
    if any_distance and can_begin(found, network):
        weights = carried_over(found, network)
    elif can_widen(found, network):
        weights = widened(found, network)
    elif can_gain_frame(found, network):
        weights = with_frame(found, network)
    elif found.config == network.config:
        weights = found.state_dict()
    else:
        raise SyndistillError(f"{path} holds a network of another configuration than this run's; name its own stage")
    network.load_state_dict(weights)
    return of


def check_told_frame(network: DecoderNetwork, data: DataConfig) -> None:
    """SyndistillError where a frame is to be told to a network that keeps none."""
    if data.tell_frame and not network.keeps_frame:
        raise SyndistillError(
            f"data.tell_frame: a {network.config.family} network of these dials keeps no frame of its own; leave "
            "tell_frame out, or set network.frame_memory"
        )
