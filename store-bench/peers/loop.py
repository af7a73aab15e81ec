"""How a peer in Python is measured: so long, every operation timed, one line of JSON at the end.

A peer is called as `peer.py CASE CLIENTS SECONDS DIRECTORY`. The directory is new and holds `documents.json`, what
is stored; the peer puts its database beside it.
"""

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Call:
    case: str
    clients: int
    seconds: float
    directory: Path

    @staticmethod
    def parse():
        case, clients, seconds, directory = sys.argv[1:]
        return Call(case, int(clients), float(seconds), Path(directory))

    def document(self, name):
        return json.loads((self.directory / "documents.json").read_text())[name]


def report(began, latencies, settings):
    """Prints what came of it, from the latencies of all operations in nanoseconds."""
    seconds = time.perf_counter() - began
    latencies = sorted(latencies)
    at = lambda part: latencies[min(len(latencies) - 1, int(part * len(latencies)))] / 1e3
    print(
        json.dumps(
            {
                "ops": len(latencies),
                "seconds": seconds,
                "p50_us": at(0.5),
                "p99_us": at(0.99),
                "max_us": at(1.0),
                "settings": settings,
            }
        )
    )


def pragmas(connection):
    """What decides about durability, as the connection that wrote says it."""
    ask = lambda name: connection.execute(f"PRAGMA {name}").fetchone()[0]
    return {
        "journal_mode": ask("journal_mode"),
        "synchronous": ["OFF", "NORMAL", "FULL", "EXTRA"][ask("synchronous")],
        "sqlite": connection.execute("SELECT sqlite_version()").fetchone()[0],
    }
