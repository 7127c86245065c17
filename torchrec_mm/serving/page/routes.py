"""The page over HTTP: forms ask by GET, pictures are asked for by id, nothing else is let in."""

import base64
import hashlib
import logging

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from torchrec_mm.errors import InputError
from torchrec_mm.serving.page.page import FIELDS, Page, style

logger = logging.getLogger(__name__)
HELD_S = 3600  # a picture, by the browser


def page_routes(page: Page) -> APIRouter:
    """GET /page and GET /page/pictures/ID."""
    router = APIRouter(include_in_schema=False)
    headers = safe_headers()

    @router.get("/page")
    def show(request: Request) -> Response:
        said = {name: request.query_params.get(name, "") for name in FIELDS}
        answer, error, status = None, "", 200
        if said["user"].strip():
            try:
                answer = page.asked(said)
            except InputError as refused:
                error, status = " ".join(str(refused).split()), 422
        html = page.render(said, answer, error)
        return HTMLResponse(html, status_code=status, headers=headers)

    @router.get("/page/pictures/{item_id}")
    def picture(item_id: int) -> Response:
        found = page.pictures(item_id) if -(2**63) <= item_id < 2**63 else None
        if found is None:
            return Response(status_code=404, headers=headers)
        held = {"cache-control": f"private, max-age={HELD_S}"}
        return Response(found, media_type="image/jpeg", headers=headers | held)

    return router


def safe_headers() -> dict[str, str]:
    """No script, no frame, no other host; one style, known by its hash."""
    digest = base64.b64encode(hashlib.sha256(style().encode()).digest()).decode()
    policy = (
        "default-src 'none'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        f"frame-ancestors 'none'; style-src 'sha256-{digest}'"
    )
    return {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
    }
