"""OpenAI Agents' SQLiteSession: `add_items` adds one item to a conversation. One session for each task, one file."""

import asyncio
import json
import time

from agents import SQLiteSession

from loop import Call, pragmas, report

call = Call.parse()
item = {"role": "assistant", "content": json.dumps(call.document("event")["payload"])}
sessions = [SQLiteSession(f"session-{n}", call.directory / "openai.db") for n in range(call.clients)]


async def client(session, until):
    latencies = []
    while (began := time.perf_counter_ns()) < until:
        await session.add_items([item])
        latencies.append(time.perf_counter_ns() - began)
    return latencies


async def run(seconds):
    until = time.perf_counter_ns() + int(seconds * 1e9)
    latencies = await asyncio.gather(*(client(session, until) for session in sessions))
    return [one for of_task in latencies for one in of_task]


async def main():
    await run(call.seconds / 10)
    began = time.perf_counter()
    latencies = await run(call.seconds)
    # A session opens its connections itself, and leaves SQLite's own default, which is FULL: asked of one like them.
    report(began, latencies, pragmas(sessions[0]._get_connection()))


asyncio.run(main())
