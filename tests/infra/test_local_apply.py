"""The local profile of the platform, applied to an emulator, with the pipeline on what Terraform created.

The end of it, `terraform destroy` and an empty state, is the end of the fixture (conftest.py).
"""

import pytest

from tests.infra.local import Applied, pipeline

pytestmark = pytest.mark.emulator


async def test_what_a_vendor_holds_is_in_the_lake_of_what_terraform_created(applied: Applied) -> None:
    done = await pipeline(applied, lambda _: None)
    assert done.records > 0
    assert done.rows == done.records
    assert done.created == frozenset()
