"""What the threads of many users have besides the contract in ports/test_time_and_threads.py."""

import asyncio
import threading

from services.runtime.threads import SomeThreads, WorkerThreads


async def test_the_flood_of_one_user_leaves_room_for_the_others() -> None:
    going = threading.Event()
    with WorkerThreads(2) as threads:
        flood, other = SomeThreads(threads, 1), SomeThreads(threads, 1)
        waiting = [asyncio.create_task(flood.run(going.wait, 10.0)) for _ in range(50)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(other.run(int, "7"), 5) == 7
        assert not any(task.done() for task in waiting)
        going.set()
        assert await asyncio.gather(*waiting) == [True] * 50


async def test_who_stops_waiting_for_a_thread_leaves_its_place_to_the_next() -> None:
    going = threading.Event()
    with WorkerThreads(1) as threads:
        some = SomeThreads(threads, 1)
        tasks = [asyncio.create_task(some.run(going.wait, 10.0)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        going.set()
        assert await asyncio.gather(*tasks[::2]) == [True, True]
