"""Storms find what is planted: every fault, within a few storms."""

import pytest

from tests.lab.planted.faults import FAULTS, Fault
from tests.lab.planted.planting import storms_with

faults = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)


@faults
def test_the_text_of_a_fault_stands_in_its_module(fault: Fault) -> None:
    """A module that has changed needs its fault written anew."""
    assert fault.plant(fault.path.read_text("utf-8")).count(fault.instead) >= (1 if fault.instead else 0)
    assert fault.finders, "a fault that no storm finds is of no use"


@faults
def test_a_storm_finds_the_fault(fault: Fault) -> None:
    found = storms_with(fault, fault.finders)
    assert found.seed is not None, f"{fault.what}: storms {fault.finders} do not find it"


@pytest.mark.slow
@faults
def test_the_first_storms_find_the_fault(fault: Fault) -> None:
    assert storms_with(fault, range(500)).seed is not None
