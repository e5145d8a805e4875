"""The floors: thirty lines a client that read a row, build the body, POST it, parse the answer and write a line; no more.

Run as ``python -P floors.py CLIENT ROWS OUT URL CONCURRENCY`` in the environment of ``floors.txt``.
"""

# mypy: disable-error-code="import-not-found, import-untyped, no-any-unimported"
from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

HEADERS = {"Content-Type": "application/json", "Authorization": "Bearer bench"}
Post = Callable[[bytes], bytes]


def body(row: dict[str, str]) -> bytes:
    message = {"role": "user", "content": row["prompt"]}
    return json.dumps({"model": "bench-model", "messages": [message]}, separators=(",", ":")).encode()


def line(row: dict[str, str], answer: bytes) -> str:
    return json.dumps({**row, "response": json.loads(answer)["choices"][0]["message"]["content"]}) + "\n"


def threads(rows: Iterator[str], out: IO[str], concurrency: int, post: Post) -> None:
    """One thread a connection; reading and writing under a lock each."""
    reading, writing = threading.Lock(), threading.Lock()

    def work() -> None:
        while True:
            with reading:
                text = next(rows, None)
            if text is None:
                return
            row = json.loads(text)
            written = line(row, post(body(row)))
            with writing:
                out.write(written)

    pool = [threading.Thread(target=work) for _ in range(concurrency)]
    for thread in pool:
        thread.start()
    for thread in pool:
        thread.join()


def with_requests(rows: Iterator[str], out: IO[str], url: str, concurrency: int) -> None:
    """THE floor: one shared session, no look at the environment, a pool as large as the number of threads."""
    import requests

    session = requests.Session()
    session.trust_env = False
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=concurrency))

    def post(data: bytes) -> bytes:
        response = session.post(url, data=data, headers=HEADERS)
        response.raise_for_status()
        return response.content

    threads(rows, out, concurrency, post)


def with_prepared(rows: Iterator[str], out: IO[str], url: str, concurrency: int) -> None:
    """`requests`, prepared once, copied with a new body for every row."""
    import requests

    session = requests.Session()
    session.trust_env = False
    session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=concurrency))
    template = session.prepare_request(requests.Request("POST", url, headers=HEADERS, data=b"{}"))

    def post(data: bytes) -> bytes:
        request = template.copy()
        request.body = data
        request.headers["Content-Length"] = str(len(data))
        response = session.send(request)
        response.raise_for_status()
        return response.content

    threads(rows, out, concurrency, post)


def with_urllib3(rows: Iterator[str], out: IO[str], url: str, concurrency: int) -> None:
    import urllib3

    pool = urllib3.PoolManager(maxsize=concurrency)

    def post(data: bytes) -> bytes:
        response = pool.request("POST", url, body=data, headers=HEADERS, retries=False)
        if response.status != 200:
            raise RuntimeError(f"status {response.status}")
        return response.data

    threads(rows, out, concurrency, post)


def with_aiohttp(rows: Iterator[str], out: IO[str], url: str, concurrency: int) -> None:
    import asyncio

    import aiohttp

    async def work(session: aiohttp.ClientSession) -> None:
        for text in rows:
            row = json.loads(text)
            async with session.post(url, data=body(row)) as response:
                response.raise_for_status()
                out.write(line(row, await response.read()))

    async def main() -> None:
        connector = aiohttp.TCPConnector(limit=concurrency)
        async with aiohttp.ClientSession(connector=connector, headers=HEADERS) as session:
            await asyncio.gather(*(work(session) for _ in range(concurrency)))

    asyncio.run(main())


def with_pycurl(rows: Iterator[str], out: IO[str], url: str, concurrency: int) -> None:
    """libcurl's multi interface: one thread, the transfers in C."""
    import io

    import pycurl

    multi = pycurl.CurlMulti()
    multi.setopt(pycurl.M_MAXCONNECTS, concurrency)
    idle: list[Any] = []
    asked: dict[Any, tuple[dict[str, str], io.BytesIO]] = {}
    for _ in range(concurrency):
        handle = pycurl.Curl()
        handle.setopt(pycurl.URL, url)
        handle.setopt(pycurl.HTTPHEADER, [*(f"{name}: {value}" for name, value in HEADERS.items()), "Expect:"])
        handle.setopt(pycurl.FAILONERROR, True)
        idle.append(handle)
    more = True
    while more or asked:
        while idle and more:
            text = next(rows, None)
            if text is None:
                more = False
                break
            handle, row, answer = idle.pop(), json.loads(text), io.BytesIO()
            handle.setopt(pycurl.POSTFIELDS, body(row))
            handle.setopt(pycurl.WRITEDATA, answer)
            asked[handle] = row, answer
            multi.add_handle(handle)
        multi.perform()
        left = 1
        while left:
            left, done, failed = multi.info_read()
            if failed:
                raise RuntimeError(failed[0][2])
            for handle in done:
                multi.remove_handle(handle)
                row, answer = asked.pop(handle)
                out.write(line(row, answer.getvalue()))
                idle.append(handle)
        if asked and not (idle and more):
            multi.select(1.0)


CLIENTS = {
    "requests": with_requests,
    "prepared": with_prepared,
    "urllib3": with_urllib3,
    "aiohttp": with_aiohttp,
    "pycurl": with_pycurl,
}

if __name__ == "__main__":
    client, source, target, base, most = sys.argv[1:]
    with Path(source).open(encoding="utf-8") as source_file, Path(target).open("w", encoding="utf-8") as target_file:
        CLIENTS[client](iter(source_file), target_file, f"{base}/v1/chat/completions", int(most))
