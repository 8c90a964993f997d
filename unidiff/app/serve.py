"""The server of the explorer, which answers on this machine alone."""

from __future__ import annotations

import importlib
import ipaddress
import socket
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from unidiff.app.gradio import gradio
from unidiff.errors import RunError, require, require_whole

__all__ = ["Guarded", "address", "is_loopback", "listen", "serve"]

# The page loads its own files and nothing else; gradio's own scripts are inline, and compile templates.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:"
)
_BACKLOG = 64  # connections that wait


def is_loopback(host: str) -> bool:
    """Whether an address or a name is that of this machine alone: 127.0.0.1, ::1, localhost."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections from this machine.

    Args:
        host: A loopback address, or localhost.
        port: From 0 to 65535; 0 takes a free one.

    Raises:
        ParameterError: If the address is another one, or there is no such port.
        RunError: If the port is taken.
    """
    require(is_loopback(host), "--host", host, "a loopback address (127.0.0.1, ::1 or localhost)")
    require_whole("--port", port, 0, 65535)
    own = "127.0.0.1" if host == "localhost" else host
    server = socket.socket(socket.AF_INET6 if ":" in own else socket.AF_INET)
    try:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind((own, port))
        server.listen(_BACKLOG)
    except OSError as error:
        server.close()
        raise RunError(f"--port {port}: {error.strerror}. Choose another one; --port 0 takes a free one.") from error
    return server


def address(server: socket.socket) -> str:
    """Where a browser finds the page."""
    host, port, *_ = server.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class Guarded:
    """An ASGI application whose pages load nothing from elsewhere, and which answers only to names of this machine.

    A page of another site cannot ask for it under a name of its own that leads here (DNS rebinding).

    Args:
        inner: The application.
    """

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.inner(scope, receive, send)
            return
        host = dict(scope["headers"]).get(b"host", b"").decode("latin-1")
        if not is_loopback(urlsplit(f"//{host}").hostname or ""):
            head = [(b"content-type", b"text/plain")]
            await send({"type": "http.response.start", "status": 403, "headers": head})
            await send({"type": "http.response.body", "body": b"The explorer answers on this machine alone.\n"})
            return

        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                own = (b"content-security-policy", _POLICY.encode())
                message = {**message, "headers": [*message.get("headers", ()), own]}
            await send(message)

        await self.inner(scope, receive, guarded)


def serve(page: Any, server: socket.socket, ready: Callable[[], object] = lambda: None) -> None:
    """Serve a page until the process is interrupted.

    Args:
        page: What `unidiff.app.page.page` made.
        server: A socket that `listen` made.
        ready: Called before the first request is answered.
    """
    gr, fastapi, uvicorn = gradio(), importlib.import_module("fastapi"), importlib.import_module("uvicorn")
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    options: dict[str, Any] = {"theme": theme, "ssr_mode": False, "footer_links": [], "show_error": True}
    host, port, *_ = server.getsockname()
    inner = gr.mount_gradio_app(fastapi.FastAPI(), page, "/", server_name=host, server_port=port, **options)
    # A page that is open keeps a connection, which is not waited for.
    config = uvicorn.Config(Guarded(inner), log_level="warning", timeout_graceful_shutdown=1)
    ready()
    uvicorn.Server(config).run(sockets=[server])
