"""The simulation: one seed is one history of the real services in a simulated world, and at its end lake equals source.

    python -m tests.simulation --seeds 0-299 --jobs 2           figures; exit 1 if any seed failed
    python -m tests.simulation --seeds 17 --rows 1,25 --trace   one history with these faults, every call printed

The services (`extractor.service.run`, `Transformer.run`, `Compactor.run`) run unchanged, two processes each, in one
asyncio loop of virtual time (`loop.py`). Randomness comes from `Random(seed)` alone, so a seed replays exactly; since
the order of a set of strings counts, the command runs itself with PYTHONHASHSEED=0.

What is where
    loop.py       the loop: virtual time, no sockets, no threads
    aws.py        Kinesis, DynamoDB, S3, Secrets Manager: `tests/fakes.py` with quotas, sequence numbers, full logs
    calls.py      `Call` (one call of a port) and `Twist` (what befalls it)
    processes.py  `Process`: its own clocks, identity, leases, local state; killed, frozen, asked to stop
    vendor.py     the vendor and its customers
    world.py      `World`: all of it together, the supervisor of the processes, the weather (small faults at random)
    faults.py     the injectors, one for each row of `../shared/faults.md`; more of them in faults_workers.py,
                  faults_streams.py, faults_lake.py, faults_records.py; all of them: every_fault.py
    real_tables.py  version tables in Iceberg instead of memory, for the faults that need snapshots
    mutations.py  one mistake each in the services, to prove that it would be found (`--mutate`)
    oracle.py     I1, I2, I3, I5 from the logs and the vendor
    run.py        `simulate(seed, rows)`: plan, live, come to rest (I4), judge (I6), `Report`

To inject a fault (see `faults.py`; an injector is `async def (world, random) -> None`, run beside the history)
    @injector(row, emits=(Event, ...), reshards=False, prepare=None, every=1)    registers it: the plan takes rows in
                                                          turn (one seed in `every`), tests use them all
    world.intercept(f)        f(call) -> Twist | None about every call of every process; returns what ends it
    ambush(world, row, matches, twist, times=, within_s=)  the next calls that match, counted; storm(...): for a time
    Twist(delay_s, error, lost, late_s, kill="before"|"after", freeze_s, again)
    world.aws.streams.conditions                          refuses, starves, jitter_s, iterators_expired_at, on_...
    world.aws.streams.split / merge / reshard / trim / delete / create / held / open_shards / shard_of, _put (no quota)
    world.aws.rows.held / delete, world.aws.objects.held  an operator's hands: calls without a process, never at fault
    world.alive(service), Process.kill() freeze(s) stop() skew_s allow, process.runtime.leases.held
    world.clock.leap(s)       every wall clock goes on, no monotonic one does
    world.heard, world.said(Event, since=)                what the services said
    world.strike(row, what)   the fault took effect: call it only then. world.note(who, kind, what): a line of the trace
An injector ends when its fault is over; the pipeline has STREAMS_RESUME_S (run.py) from then on to be whole again.
To judge something of its own it calls `world.object(kind, what)`: a finding of the seed (kinds: oracle.Finding).
"""
