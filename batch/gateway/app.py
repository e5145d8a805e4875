"""The endpoint: a request is measured, parsed, checked, verified, let in once, and answered by a model."""

from __future__ import annotations

import asyncio
import hmac
import sys
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from email.utils import formatdate
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .. import exact
from ..clock import SYSTEM, Clock
from ..signature import SignatureError, verify, verify_bound
from ..wires import DONE, WIRES, Asked, write_chunk
from . import shape
from .model import Completion, Model
from .refusal import RefusalError
from .replay import Replays
from .stored import Stored

BODY_BYTES = 8 << 20
BODY_SECONDS = 30.0
HEADER_BYTES = 32 << 10
NO_MODEL = "an echo: answers repeat the last message, no language model is here"
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")

_JSON = "application/json"
_WIRE = WIRES["ails"]
_REASONS = {
    "shape": ("signature", "d, t or s is missing or malformed"),
    "clock": ("clock", "t is too far from this gateway's clock; its Date header tells the time here"),
    "date": ("date", "d is no date that t has anywhere"),
    "mac": ("signature", "the signature does not match"),
}


def refused(refusal: RefusalError) -> Response:
    """A refusal as a response."""
    return Response(refusal.body, refusal.status, refusal.headers, _JSON)


@dataclass(frozen=True, slots=True)
class _Doorway:
    """Around every request: `Date` from the gateway's clock, a known `Host`, headers of a bounded size."""

    app: ASGIApp
    hosts: frozenset[str]
    clock: Clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def dated(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["date"] = formatdate(self.clock.time(), usegmt=True)
            await send(message)

        refusal = self._refusal(scope)
        await (refused(refusal) if refusal else self.app)(scope, receive, dated)

    def _refusal(self, scope: Scope) -> RefusalError | None:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        if len(scope["raw_path"]) + sum(len(name) + len(value) for name, value in headers) > HEADER_BYTES:
            return RefusalError(431, "header", "the request's header is too large", close=True)
        named = [value.decode("latin-1").lower() for name, value in headers if name == b"host"]
        if len(named) != 1:
            return RefusalError(400, "host", "exactly one Host header is needed", close=True)
        name, _, port = named[0].rpartition(":")
        host = name if name and port.isdigit() else named[0]
        if host not in self.hosts:
            return RefusalError(421, "host", "this gateway does not answer for that Host", close=True)
        return None


@dataclass(frozen=True, slots=True)
class _Endpoint:
    secrets: Sequence[str]
    api_keys: Sequence[bytes]
    model: Model
    models: Collection[str]
    require_bound: bool
    replays: Replays
    stored: Stored
    clock: Clock

    async def signed(self, request: Request) -> Response:
        """`POST /v1/chat/completions` of the signed protocol."""
        return await self._answer(request, signed=True)

    async def plain(self, request: Request) -> Response:
        """`POST /openai/v1/chat/completions`: a bearer key, no signature."""
        return await self._answer(request, signed=False)

    async def health(self, request: Request) -> Response:
        """`GET /healthz`: which model answers, and whether it can."""
        model = self.model
        about = {
            "status": "unavailable" if model.trouble else "ok",
            "model": model.name,
            "real": model.real,
            "licence": model.licence or None,
            "note": model.trouble or ("" if model.real else NO_MODEL),
        }
        return Response(exact.dumps(about), 503 if model.trouble else 200, media_type=_JSON)

    async def _answer(self, request: Request, *, signed: bool) -> Response:
        try:
            body = await _body(request)
            asked = _read(body)
            messages, parameters = shape.read_messages(asked.messages), shape.read_parameters(asked.parameters)
            if signed:
                self._admit(request, body, asked)
            client = self._client(request)
            if self.models and asked.model not in self.models:
                raise RefusalError(404, "model_not_found", f"the models here are {', '.join(self.models)}")
            if asked.stream:
                return await self._streamed(asked, messages, parameters)

            async def ask() -> bytes:
                return self._written(await self.model.complete(messages, parameters))

            return Response(await self._once(request, client, asked, ask), media_type=_JSON)
        except RefusalError as refusal:
            return refused(refusal)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody is there to read it

    def _admit(self, request: Request, body: bytes, asked: Asked) -> None:
        now_ms = int(self.clock.time() * 1000)
        bound = request.headers.get("x-batch-signature")
        try:
            secret = verify(asked.fields, asked.content, self.secrets, now_ms)
            if bound is not None:
                path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"].decode("latin-1")
                client_id = request.headers.get("client-id", "")
                verify_bound(bound, secret, request.method, path, query, asked.fields["t"], client_id, body)
        except SignatureError as error:
            raise RefusalError(401, *_REASONS[error.reason]) from None
        if bound is None and self.require_bound:
            raise RefusalError(401, "signature", "this gateway asks for x-batch-signature")
        self.replays.admit(int(asked.fields["t"]), asked.fields["s"], now_ms)

    def _client(self, request: Request) -> bytes:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        held = given.encode("latin-1")
        # Every key is compared, so that the time does not tell which one came close.
        known = [hmac.compare_digest(held, key) for key in self.api_keys]
        if scheme.lower() != "bearer" or not any(known):
            raise RefusalError(401, "key", "the API key is not known here")
        return held

    async def _once(self, request: Request, client: bytes, asked: Asked, ask: Callable[[], Awaitable[bytes]]) -> bytes:
        key = request.headers.get("idempotency-key")
        if key is None:
            return await ask()
        if not 0 < len(key) <= 255:
            raise RefusalError(400, "idempotency", "an Idempotency-Key has 1 to 255 characters")
        return await self.stored.answer(client, key, exact.dumps([asked.model, asked.messages, asked.parameters]), ask)

    def _written(self, completion: Completion) -> bytes:
        return _WIRE.write_answer(
            completion.text,
            model=self.model.name,
            id=_name(),
            created=int(self.clock.time()),
            finish_reason=completion.finish_reason,
            prompt_tokens=completion.prompt_tokens,
            completion_tokens=completion.completion_tokens,
        )

    async def _streamed(self, asked: Asked, messages: Sequence[Mapping[str, str]], parameters: Mapping[str, Any]) -> Response:
        pieces = self.model.stream(messages, parameters)
        first = await anext(pieces)  # a model that is away says so before the status line
        chunk = partial(write_chunk, model=self.model.name, id=_name(), created=int(self.clock.time()))

        async def events() -> AsyncIterator[bytes]:
            piece = first
            async with aclosing(pieces):
                try:
                    while isinstance(piece, str):
                        yield chunk(piece)
                        piece = await anext(pieces)
                except RefusalError as refusal:  # too late for a status; a stream without its [DONE] is not whole
                    yield b"data: %b\n\n" % refusal.body
                    return
            yield chunk("", finish_reason=piece.finish_reason)
            yield DONE

        return StreamingResponse(events(), media_type="text/event-stream", headers={"cache-control": "no-store"})


def _name() -> str:
    return f"chatcmpl-{uuid.uuid4().hex}"


async def _body(request: Request) -> bytes:
    if "transfer-encoding" in request.headers or len(request.headers.getlist("content-length")) != 1:
        raise RefusalError(400, "length", "a body comes with one Content-Length, not in chunks", close=True)
    # The parser has let only digits through, but not how many.
    if len(request.headers["content-length"]) > 12 or int(request.headers["content-length"]) > BODY_BYTES:
        raise RefusalError(413, "size", f"the body may have {BODY_BYTES} bytes", close=True)
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.body()
    except TimeoutError:
        raise RefusalError(408, "slow", f"the body did not come within {BODY_SECONDS:.0f} s", close=True) from None


def _read(body: bytes) -> Asked:
    try:
        return _WIRE.read_request(body)
    except ValueError as error:
        raise RefusalError(400, "shape", f"the body cannot be read: {error}") from None


async def _failed(request: Request, error: Exception) -> Response:
    """The last resort: the place on this side, nothing of it to the client."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    sys.stderr.write(f"gateway: a bug, please report it: {type(error).__name__} at {frame.filename}:{frame.lineno}\n")
    return refused(RefusalError(500, "internal", "this gateway failed"))


async def _not_here(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    headers = error.headers if isinstance(error, HTTPException) else None
    words = "no such method here" if status == 405 else "nothing is served here; POST /v1/chat/completions, GET /healthz"
    return refused(RefusalError(status, "path", words, headers=headers, close=True))


def make_app(
    *,
    secrets: Sequence[str],
    api_keys: Sequence[str],
    model: Model,
    models: Collection[str] = (),
    hosts: Collection[str] = LOOPBACK,
    require_bound: bool = False,
    openai: bool = False,
    started: float | None = None,
    clock: Clock = SYSTEM,
    replay_capacity: int = 500_000,
) -> Starlette:
    """The gateway as an ASGI application.

    Args:
        secrets: Signing secrets in force; more than one while they are rotated.
        api_keys: Bearer keys in force.
        model: What answers.
        models: The model names clients may ask for; any when empty. The answer always names the model that gave it.
        hosts: Names allowed in `Host`, lower case, without port.
        require_bound: Refuse requests without `x-batch-signature`.
        openai: Also serve `/openai/v1/chat/completions`, where the key alone suffices.
        started: Seconds since the epoch; what was stamped earlier is refused, an earlier gateway may have answered it. Not
            after the port was opened; now, when not given.
        clock: The gateway's clock, for the time window and the `Date` header.
        replay_capacity: How many signatures are remembered.
    """
    endpoint = _Endpoint(
        secrets=tuple(secrets),
        api_keys=tuple(key.encode("latin-1") for key in api_keys),
        model=model,
        models=tuple(models),
        require_bound=require_bound,
        replays=Replays(int((clock.time() if started is None else started) * 1000), replay_capacity),
        stored=Stored(clock),
        clock=clock,
    )
    routes = [
        Route("/healthz", endpoint.health, methods=["GET"]),
        Route("/v1/chat/completions", endpoint.signed, methods=["POST"]),
    ]
    if openai:
        routes.append(Route("/openai/v1/chat/completions", endpoint.plain, methods=["POST"]))
    doorway = Middleware(_Doorway, hosts=frozenset(hosts), clock=clock)
    return Starlette(routes=routes, middleware=[doorway], exception_handlers={HTTPException: _not_here, Exception: _failed})
