"""The simulation bites: with any one of four promises broken in the services, it finds lost or wrong data."""

import pytest

from tests.simulation.mutations import MUTATIONS
from tests.simulation.run import simulate
from tests.simulation.world import Scale

SEEDS_MAX = 200
SMALL = Scale(records=4, changes=50, work_s=40.0, observations_min=40)
# Rows under which each promise is needed; any seed of the whole simulation meets some of them.
ROWS = {"order": (8, 24), "fence": (25,), "parents": (10, 11), "retry": (18,)}


@pytest.mark.parametrize("name", sorted(MUTATIONS))
def test_a_broken_promise_is_found_within_200_seeds(name: str) -> None:
    for seed in range(SEEDS_MAX):
        with MUTATIONS[name]():
            report = simulate(seed, ROWS[name], scale=SMALL)
        found = [finding for finding in report.findings if finding.kind in ("lost", "wrong", "doubled")]
        if found:
            print(f"{name}: seed {seed}: {found[0]}")
            assert simulate(seed, ROWS[name], scale=SMALL).findings == ()
            return
    raise AssertionError(f"{SEEDS_MAX} seeds, and nobody found the mutation {name}")
