"""LangGraph's SqliteSaver: `put` saves a checkpoint. One saver, as its documents show it, shared by threads."""

import sqlite3
import threading
import time
import uuid

from langgraph.checkpoint.sqlite import SqliteSaver

from loop import Call, pragmas, report

call = Call.parse()
state = call.document("checkpoint")
connection = sqlite3.connect(call.directory / "langgraph.db", check_same_thread=False)
saver = SqliteSaver(connection)
saver.setup()
connection.execute("PRAGMA synchronous = FULL")


def client(thread, until, latencies):
    step = 0
    while (began := time.perf_counter_ns()) < until:
        checkpoint = {
            "v": 4,
            "ts": "2024-05-04T06:32:42.235444+00:00",
            "id": f"{step:08}-{uuid.uuid4()}",
            "channel_values": state,
            "channel_versions": {"messages": step},
            "versions_seen": {},
        }
        config = {"configurable": {"thread_id": thread, "checkpoint_ns": ""}}
        saver.put(config, checkpoint, {"source": "loop", "step": step}, {})
        latencies.append(time.perf_counter_ns() - began)
        step += 1


def run(seconds):
    until = time.perf_counter_ns() + int(seconds * 1e9)
    latencies = [[] for _ in range(call.clients)]
    threads = [
        threading.Thread(target=client, args=(f"thread-{n}", until, latencies[n])) for n in range(call.clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [one for of_thread in latencies for one in of_thread]


run(call.seconds / 10)
began = time.perf_counter()
report(began, run(call.seconds), pragmas(connection))
