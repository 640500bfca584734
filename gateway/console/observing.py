"""What machines ask over TCP: /health for a load balancer or supervisor, /metrics for Prometheus.

Both tell numbers and names of Sources and Destinations only, so they need no login. `healthy` means: the store has
not failed and a commit reaches the disk. A disk that is full but keeps its word (intake refused) is an alarm.
"""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from gateway.app import App
from gateway.console.document import to_json
from gateway.console.metrics import CONTENT_TYPE, render_metrics
from gateway.console.report import make_report
from gateway.errors import StoreError

COMMIT_TIMEOUT_S = 5.0
COMMIT_FRESH_S = 5.0  # so that whoever asks often does not make the disk busy


def observing_application(app: App) -> Starlette:
    """Return the application that the console port serves."""
    observing = _Observing(app)
    return Starlette(
        routes=[
            Route("/health", observing.health, methods=["GET"]),
            Route("/metrics", observing.metrics, methods=["GET"]),
        ]
    )


class _Observing:
    def __init__(self, app: App) -> None:
        self._app = app
        self._proving = asyncio.Lock()
        self._proven_at = -COMMIT_FRESH_S

    async def health(self, request: Request) -> Response:
        fault = await self._fault()
        alarms = self._app.alarms.standing()
        document = {
            "status": "failed" if fault else "alarm" if alarms else "ok",
            "alarms": len(alarms),
            "reason": fault,
        }
        return Response(to_json(document), 503 if fault else 200, media_type="application/json", headers=_FRESH)

    async def metrics(self, request: Request) -> Response:
        try:
            report = await make_report(self._app)
        except (StoreError, TimeoutError):
            return Response("the store cannot be read\n", 503, media_type="text/plain", headers=_FRESH)
        page = await asyncio.to_thread(render_metrics, report)
        return Response(page, headers={"Content-Type": CONTENT_TYPE, **_FRESH})

    async def _fault(self) -> str | None:
        """Return why nothing can be kept, None when a commit works."""
        if self._app.failed.is_set():
            return "the store has failed"
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S), self._proving:
                if self._app.clock.monotonic() - self._proven_at >= COMMIT_FRESH_S:
                    await self._app.prove_commit()
                    self._proven_at = self._app.clock.monotonic()
        except TimeoutError:
            return "no commit reached the disk in time"
        except StoreError as error:
            return str(error)
        return None


_FRESH = {"Cache-Control": "no-store"}
