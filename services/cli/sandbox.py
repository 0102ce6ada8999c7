"""`avesa sandbox`: the vendor on this machine, with made-up records that keep changing. For trying, and for tests."""

import random
from datetime import UTC, datetime
from typing import Annotated

import typer

from services.cli.options import command
from services.cli.screen import Screen

app = typer.Typer()


@command(app, "sandbox", "avesa sandbox", "avesa sandbox --port 8080 --records 5000")
def sandbox(
    screen: Screen,
    port: Annotated[int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="0: a free one.")] = 0,
    records: Annotated[int, typer.Option("--records", metavar="COUNT", min=1, help="Tickets to begin with.")] = 1_000,
    seed: Annotated[int, typer.Option("--seed", metavar="NUMBER", help="The same number, the same records.")] = 1,
) -> None:
    """Serve a ConnectWise PSA on this machine until Ctrl-C.

    Change what it holds: curl -X POST URL/_sandbox/change -d '{"site": "sandbox", "count": 10}'
    """
    from services.sandbox.sites import Keys
    from services.sandbox.vendor import Running, serve_forever
    from services.sandbox.world import World

    world = World(lambda: datetime.now(UTC), random.Random(seed))  # noqa: S311  seeded on purpose
    keys = Keys("sandbox", "public", "private", "00000000-0000-4000-8000-000000000000")
    world.add_site("sandbox", keys)
    world.populate("sandbox", {"service/tickets": records, "time/entries": records}, minimum=min(12, records))

    def ready(running: Running) -> None:
        for name, value in {
            "API_URL": running.url,
            "COMPANY_ID": keys.company_id,
            "PUBLIC_KEY": keys.public_key,
            "PRIVATE_KEY": keys.private_key,
            "CLIENT_ID": keys.client_id,
        }.items():
            screen.say(f"export CONNECTWISE_{name}={value}")
        screen.out.flush()
        screen.note("avesa setup-service --tenant-id acme --company-name Acme --service connectwise")

    serve_forever(world, port=port, control=True, ready=ready)
