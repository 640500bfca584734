"""Brings Instances to a DICOMweb archive: STOW-RS (PS3.18, 10.5), several in one request.

The body is streamed from the files, so memory does not grow with the objects. The answer says of each Instance whether
it was stored (10.5.3, annex F): in the Referenced or in the Failed SOP Sequence, with the reasons of C-STORE.

    200, 202, 409 with a body   by Instance; one that it does not name is not stored: a 200 alone is no promise (an
                                Orthanc answers it to parts that it could not read). 200 without a body: stored
    400, 413, 415, 500 ...      of several: each is tried alone; of one: refused, or later a limited number of times
    401, 403, 404               later: it is the configuration that is wrong, not the Instance
    408, 429, 502, 503, 504     later, when the archive says
    a connection that breaks    later; where it keeps breaking, each alone, and what it breaks at while others are
                                stored a limited number of times (`suspects.py`)
"""

import asyncio
import base64
import json
import logging
import os
import ssl
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, replace
from typing import Any

import httpx

from gateway.config import StowDestination
from gateway.errors import ConfigError, ContentError, LinkError, StoreError, TemporaryError
from gateway.model import Parcel, Receipt, Verdict
from gateway.net.tls import client_context
from gateway.pacing import Bandwidth
from gateway.secrets import resolve_secret
from gateway.senders.instances import (
    Instance,
    Objects,
    Preparer,
    in_study_order,
    prepared,
    read_instances,
    refused,
    unmade,
    verdict_of,
)
from gateway.senders.suspects import Suspects

CHUNK_BYTES = 256 << 10
REQUEST_BYTES_MAX = 256 << 20  # of several Instances; one may be larger
ANSWER_BYTES_MAX = 4 << 20
RETRY_AFTER_S_MAX = 3600.0

REFERENCED, FAILED = "00081199", "00081198"
INSTANCE_UID, FAILURE_REASON, WARNING_REASON = "00081155", "00081197", "00081196"
PROCESSING_FAILURE = 0x0110

_SORTED = (200, 202, 409)
_CONFIGURED = (401, 403, 404)
_BUSY = (408, 429, 502, 503, 504)
_DISLIKED = (500,)

_log = logging.getLogger("gateway.senders")
for library in ("httpx", "httpcore"):  # a line for each request
    logging.getLogger(library).setLevel(logging.WARNING)


class _BrokenError(LinkError):
    """The connection broke, or nothing was answered: it may be what was sent."""


@dataclass(frozen=True, slots=True)
class StoreAnswer:
    """What a Store Instances Response says, by SOP Instance UID: warnings (0: none) and Failure Reasons."""

    stored: Mapping[str, int]
    failed: Mapping[str, int]


class StowSender:
    """Speaks to one DICOMweb archive in one lane."""

    def __init__(
        self,
        settings: StowDestination,
        objects: Objects,
        *,
        preparer: Preparer | None = None,
        bandwidth: Bandwidth | None = None,
    ) -> None:
        """Take the parts; `bandwidth` is shared by the lanes of one Destination."""
        self.batch_max = settings.batch_max
        self._settings = settings
        self._objects = objects
        self._preparer = preparer
        self._bandwidth = bandwidth
        self._client: httpx.AsyncClient | None = None
        self._suspects = Suspects()
        self._peer_takes = False  # something of this batch was stored

    async def send(self, parcels: Sequence[Parcel]) -> AsyncGenerator[Receipt, None]:
        """Bring the Parcels study by study; see `gateway.senders.sender`. Raises LinkError and TemporaryError."""
        instances, refusals, unread = await read_instances(parcels, self._objects)
        for receipt in refusals:
            yield receipt
        self._peer_takes = False
        for group in self._groups(in_study_order(instances)):
            async with aclosing(self._send_group(group)) as receipts:
                async for receipt in receipts:
                    yield receipt
                    if receipt.verdict in (Verdict.RETRY, Verdict.RETRY_CONTENT):
                        return
        if unread is not None:
            yield unread

    async def probe(self) -> str:
        """Ask for one study, which every DICOMweb archive answers. Raises LinkError and TemporaryError."""
        response = await self._request("GET", f"{self._root}/studies?limit=1", {"Accept": "application/dicom+json"})
        if response.status >= 400:
            raise LinkError(f"{self._place}: answered {response.status}")
        return f"DICOMweb answered at {self._place} with {response.status}"

    async def close(self) -> None:
        """Close what stands open."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    @property
    def _root(self) -> str:
        return self._settings.url.rstrip("/")

    @property
    def _place(self) -> str:
        return httpx.URL(self._settings.url).host

    def _groups(self, instances: list[Instance]) -> Iterator[list[Instance]]:
        """Return what goes in one request; those that connections break at alone and last."""
        ordered = sorted(instances, key=lambda each: self._suspects.rank(each.delivery_id))
        sound = [each for each in ordered if not self._suspects.rank(each.delivery_id)]
        yield from _requests(sound)
        for each in ordered[len(sound) :]:
            yield [each]

    async def _send_group(self, instances: list[Instance]) -> AsyncGenerator[Receipt, None]:
        """Send in one request; where the archive does not say which it disliked, one after the other."""
        if not instances:
            return
        try:
            receipts, whole = await self._post(instances)
        except _BrokenError as error:
            if self._peer_takes and len(instances) == 1 and self._suspects.rank(instances[0].delivery_id):
                verdict = Verdict.RETRY_CONTENT
                yield Receipt(delivery_id=instances[0].delivery_id, verdict=verdict, reason=str(error))
                return
            for each in instances:
                self._suspects.note(each.delivery_id)
            raise
        if whole is None:
            for receipt in _retries_last(receipts):
                self._peer_takes = self._peer_takes or receipt.verdict is Verdict.DELIVERED
                self._suspects.clear(receipt.delivery_id)
                yield receipt
            return
        if len(instances) == 1:
            yield _alone(instances[0], whole)
            return
        for instance in instances:
            async with aclosing(self._send_group([instance])) as one:
                async for receipt in one:
                    yield receipt
                    if receipt.verdict in (Verdict.RETRY, Verdict.RETRY_CONTENT):
                        return

    async def _post(self, instances: list[Instance]) -> tuple[list[Receipt], int | None]:
        """Return a Receipt for each Instance, or the status that says nothing of single ones."""
        receipts: list[Receipt] = []
        async with AsyncExitStack() as files:
            ready: list[Instance] = []
            for instance in instances:
                try:
                    ready.append(await files.enter_async_context(prepared(instance, self._preparer)))
                except (ContentError, StoreError, OSError) as error:
                    receipts.append(unmade(instance, error))
            if not ready:
                return receipts, None
            boundary = uuid.uuid4().hex
            headers = {
                "Content-Type": f'multipart/related; type="application/dicom"; boundary={boundary}',
                "Content-Length": str(_length(ready, boundary)),
                "Accept": "application/dicom+json",
            }
            response = await self._request("POST", f"{self._root}/studies", headers, self._body(ready, boundary))
        if response.status not in _SORTED:
            self._raise_for(response)
            return receipts, response.status
        answer = read_answer(response.body)
        if answer is None and (response.status != 200 or response.body.strip()):
            return receipts, response.status
        return receipts + [_receipt(each, answer, response.status) for each in ready], None

    async def _body(self, instances: Sequence[Instance], boundary: str) -> AsyncIterator[bytes]:
        """Yield the parts; files are read in a thread, and no faster than the Destination's bandwidth."""
        for instance in instances:
            yield _part_head(boundary)
            with await asyncio.to_thread(instance.path.open, "rb") as file:
                while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                    if self._bandwidth is not None:
                        await self._bandwidth.take(len(chunk))
                    yield chunk
            yield b"\r\n"
        yield f"--{boundary}--\r\n".encode()

    async def _request(
        self, method: str, url: str, headers: Mapping[str, str], body: AsyncIterator[bytes] | None = None
    ) -> "_Response":
        """Ask and read the answer, at most ANSWER_BYTES_MAX of it. Raises LinkError."""
        client = self._opened()
        try:
            async with client.stream(method, url, headers={**headers, **self._credentials()}, content=body) as response:
                said = bytearray()
                async for chunk in response.aiter_bytes():
                    said += chunk
                    if len(said) > ANSWER_BYTES_MAX:
                        raise LinkError(f"{self._place}: an answer of more than {ANSWER_BYTES_MAX} bytes")
                return _Response(response.status_code, bytes(said), response.headers.get("Retry-After"))
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise LinkError(f"{self._place}: {_words(error)}") from error
        except httpx.HTTPError as error:
            raise _BrokenError(f"{self._place}: {_words(error)}") from error
        except OSError as error:
            raise LinkError(f"reading the spool while sending: {error.strerror or error}") from error

    def _raise_for(self, response: "_Response") -> None:
        """Raise for what says nothing of the Instances. Raises TemporaryError."""
        if response.status in _BUSY or response.status in _CONFIGURED or 300 <= response.status < 400:
            words = f"{self._place}: answered {response.status}"
            raise TemporaryError(words, retry_after_s=_seconds(response.retry_after))

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            settings = self._settings
            verify: ssl.SSLContext | bool = True if settings.tls is None else client_context(settings.tls)
            timeout = httpx.Timeout(settings.response_timeout_s, connect=settings.connect_timeout_s)
            self._client = httpx.AsyncClient(verify=verify, timeout=timeout, follow_redirects=False, trust_env=False)
        return self._client

    def _credentials(self) -> dict[str, str]:
        """Return the header that says who we are, from the secret as it is now. Raises LinkError."""
        if self._settings.secret is None:
            return {}
        try:
            secret = resolve_secret(self._settings.secret)
        except ConfigError as error:
            raise LinkError(f"{self._place}: {error}") from error
        if self._settings.username is None:
            return {"Authorization": f"Bearer {secret}"}
        both = base64.b64encode(f"{self._settings.username}:{secret}".encode()).decode()
        return {"Authorization": f"Basic {both}"}


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    body: bytes
    retry_after: str | None


def read_answer(body: bytes) -> StoreAnswer | None:
    """Read a Store Instances Response in DICOM JSON (PS3.18, F.2); None for what is none.

    An Instance that failed without a reason had a processing failure.
    """
    try:
        said = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if isinstance(said, list):
        said = said[0] if said else {}
    if not isinstance(said, dict) or not {REFERENCED, FAILED} & said.keys():
        return None
    return StoreAnswer(
        stored={uid: _first_number(item, WARNING_REASON) or 0 for uid, item in _items(said, REFERENCED)},
        failed={uid: _first_number(item, FAILURE_REASON) or PROCESSING_FAILURE for uid, item in _items(said, FAILED)},
    )


def _requests(instances: list[Instance]) -> Iterator[list[Instance]]:
    """Cut where a request would be too long to be lost, or would name a UID twice: the answer speaks of it once."""
    group: list[Instance] = []
    named: set[str] = set()
    size = 0
    for instance in instances:
        if group and (size + instance.size > REQUEST_BYTES_MAX or instance.sop_instance_uid in named):
            yield group
            group, named, size = [], set(), 0
        group.append(instance)
        named.add(instance.sop_instance_uid)
        size += instance.size
    if group:
        yield group


def _receipt(instance: Instance, answer: StoreAnswer | None, http_status: int) -> Receipt:
    """Return what became of one Instance; without an answer all were stored."""
    uid = instance.sop_instance_uid
    status = 0 if answer is None else answer.failed.get(uid, answer.stored.get(uid, PROCESSING_FAILURE))
    verdict, reason = verdict_of(status)
    if reason is not None:
        _log.warning("instance.answered delivery=%d status=%04X", instance.delivery_id, status)
    said = f"{http_status} {status:04X}".encode()
    return Receipt(delivery_id=instance.delivery_id, verdict=verdict, reason=reason, acknowledgement=said)


def _alone(instance: Instance, http_status: int) -> Receipt:
    """Return the Receipt of an Instance that was answered alone, and with a status only."""
    if http_status in _DISLIKED or http_status in _SORTED or http_status > 500:
        reason = f"processing failure ({http_status})"
        return Receipt(delivery_id=instance.delivery_id, verdict=Verdict.RETRY_CONTENT, reason=reason)
    return replace(
        refused(instance.delivery_id, f"refused with status {http_status}"), acknowledgement=str(http_status).encode()
    )


def _retries_last(receipts: list[Receipt]) -> list[Receipt]:
    """Return Receipts in their order, and behind them the first that asks for a retry: it ends the batch.

    "Out of resources" of one while a later one was stored is that Instance's fault, and not tried for ever.
    """
    places = [place for place, each in enumerate(receipts) if each.verdict in (Verdict.RETRY, Verdict.RETRY_CONTENT)]
    settled = [each for each in receipts if each.verdict in (Verdict.DELIVERED, Verdict.REFUSED)]
    if not places:
        return settled
    proved = any(each.verdict is Verdict.DELIVERED for each in receipts[places[0] :])
    first = receipts[places[0]]
    return [*settled, replace(first, verdict=Verdict.RETRY_CONTENT) if proved else first]


def _part_head(boundary: str) -> bytes:
    return f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode()  # the file names its syntax itself


def _length(instances: Sequence[Instance], boundary: str) -> int:
    """Return how long the body is, so that no server needs to take chunks."""
    parts = (len(_part_head(boundary)) + each.dataset_offset + each.size + 2 for each in instances)
    return sum(parts) + len(boundary) + 6


def _items(said: Mapping[str, Any], tag: str) -> list[tuple[str, Mapping[str, Any]]]:
    element = said.get(tag)
    items = element.get("Value") if isinstance(element, dict) else None
    found = []
    for item in items if isinstance(items, list) else ():
        uid = _first(item, INSTANCE_UID) if isinstance(item, dict) else None
        if isinstance(uid, str):
            found.append((uid, item))
    return found


def _first(item: Mapping[str, Any], tag: str) -> object:
    element = item.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values[0] if isinstance(values, list) and values else None


def _first_number(item: Mapping[str, Any], tag: str) -> int | None:
    value = _first(item, tag)
    if isinstance(value, str) and value.isdigit():
        return int(value)
    return value if isinstance(value, int) and 0 <= value <= 0xFFFF else None


def _seconds(text: str | None) -> float | None:
    """Return Retry-After where it is a number of seconds (RFC 9110, 10.2.3)."""
    if text is None or not text.isdigit() or len(text) > 6:
        return None
    return min(float(text), RETRY_AFTER_S_MAX) or None


def _words(error: httpx.HTTPError) -> str:
    """Return why, without the address and what was sent."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return cause.reason or "TLS failed"
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno).lower()
        cause = cause.__cause__ or cause.__context__
    return type(error).__name__
