"""What dlt does for `make bench-extract`, in a process and an environment of its own (.venv-peer).

    peer.py extract|run <base url> <records a page> <directory>

`extract` is its first step alone: the pages of a `rest_api` source written to files of the working directory, as they
came. `run` is all three, so that the records lie as JSON lines where they were to go; nested values stay JSON
(`max_table_nesting` 0), because with tables of their own the normalizer gives up on custom fields of mixed types. One
line of JSON on stdout: `Measured` of tests/bench/extract/ours.py.
"""

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from time import process_time

import dlt
from dlt.destinations import filesystem
from dlt.sources.rest_api import rest_api_source


def main(task: str, base_url: str, size: str, directory: str) -> dict[str, float]:
    source = rest_api_source(
        {
            "client": {"base_url": base_url, "paginator": {"type": "page_number", "base_page": 1, "total_path": None}},
            "resources": [
                {
                    "name": "tickets",
                    "primary_key": "id",
                    "endpoint": {"path": "tickets", "params": {"limit": int(size)}},
                }
            ],
        }
    )
    source.max_table_nesting = 0
    pipeline = dlt.pipeline(
        "bench", pipelines_dir=directory, destination=filesystem(f"{directory}/loaded"), dataset_name="bench"
    )
    started = process_time()
    pipeline.extract(source)
    if task == "run":
        pipeline.normalize(workers=1)
        pipeline.load(workers=1)
    cpu_s = process_time() - started
    found = ids = 0
    for line in lines(Path(directory), task):
        for record in json.loads(line) if line.startswith("[") else [json.loads(line)]:
            found, ids = found + 1, ids + record["id"]
    return {"records": found, "cpu_s": cpu_s, "ids": ids}


def lines(directory: Path, task: str) -> Iterator[str]:
    """What it wrote of the tickets: extracted or loaded."""
    pattern = "loaded/bench/tickets/*" if task == "run" else "bench/normalize/extracted/*/new_jobs/tickets.*"
    for file in directory.glob(pattern):
        with gzip.open(file, "rt") if file.suffix == ".gz" else file.open() as opened:
            yield from opened


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))
