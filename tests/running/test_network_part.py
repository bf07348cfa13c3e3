"""A network that a user gives: a Model, what makes one, or a part of the command line."""

import pytest

from medjax.errors import ConfigError
from medjax.iterate import static_partial
from medjax.models.model import Model
from medjax.running.network_part import network_part
from medjax.running.part_identity import identity
from medjax.running.parts import Part


def init(width, key, x):
    return {}


def apply(params, x, key=None):
    return x


def network(width):
    return Model(static_partial(init, width), apply)


class Plain:
    """A class with the two methods, made for a width."""

    def __init__(self, width):
        self.width = width

    def init(self, key, x):
        return {}

    def apply(self, params, x, key=None):
        return x


def test_a_model_or_what_makes_one():
    assert network_part(network(3), 5).value == network(3)
    assert network_part(network, 5).value == network(5)
    assert network_part(Plain, 5).value.width == 5 and network_part(Plain(4), 5).value.width == 4


def test_a_part_keeps_its_name_and_digest_and_an_object_has_the_networks_identity():
    part = network_part(Part("mine.py:net", "ab", network), 5)
    assert part == Part("mine.py:net", "ab", network(5))
    assert network_part(network, 5).sha256 == identity(network(5)) != network_part(network, 6).sha256


class Unhashable(Plain):
    """Not static for jit."""

    __hash__ = None


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, r"--network int: TypeError: 'int' object is not callable; expected a Model, or a function"),
        (Part("mine.py:net", "ab", "net"), "--network mine.py:net: TypeError"),
        (Part("mine.py:net", "ab", lambda width: 1 / 0), "--network mine.py:net: ZeroDivisionError: division by zero;"),
        (Part("mine.py:net", "ab", str), "--network mine.py:net gives a str; expected a Model"),
        (Unhashable(3), "--network Unhashable: TypeError: unhashable type: 'Unhashable'"),
    ],
)
def test_what_is_no_network_is_one_line(given, message):
    with pytest.raises(ConfigError, match=message) as caught:
        network_part(given, 5)
    assert "\n" not in str(caught.value)
