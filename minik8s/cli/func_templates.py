"""What `func init` writes: a function of each programming model, small enough to be changed into one's own."""

from __future__ import annotations

import json
import textwrap

from minik8s.api.dialects_function import GROUP_VERSION, SOURCE_ANNOTATION

MODELS: dict[str, tuple[str, str]] = {  # model -> (what it is, func.py)
    "main": (
        "parameters in, a result out",
        '''
        """Called with the request's parameters: the JSON object of its body, and its query."""


        def main(params):
            return {"hello": params.get("name", "world")}
        ''',
    ),
    "action": (
        "a request in, a Response out, or an Invoke of another function",
        '''
        """`Invoke` passes on to another function, which the Function must name in `invokes`."""

        from http import HTTPStatus

        from serverless import Invoke, Request, Response


        def action(req: Request) -> Response | Invoke:
            name = req.param("name")
            if name is None:
                return Response({"error": "which name?"}, http_status=HTTPStatus.BAD_REQUEST)
            # return Invoke("other", params={"name": name})
            return Response(f"Hello {name}!", content_type="text/plain")
        ''',
    ),
    "handler": (
        "an event and a context in, a result out",
        '''
        """As other platforms have it: the event is the request's body."""


        def handler(event, context):
            return {"hello": event.get("name", "world")}
        ''',
    ),
    "async": (
        "as main, many calls at once in one process",
        '''
        """While one call waits, others go on in the same process."""

        import asyncio


        async def main(params):
            await asyncio.sleep(float(params.get("seconds", 0.1)))
            return {"slept": True}
        ''',
    ),
    "stream": (
        "a generator, whose pieces are sent as they come",
        '''
        """Each piece is on its way when it is yielded."""

        import time


        def main(params):
            for number in range(int(params.get("count", 3))):
                yield f"{number}\\n"
                time.sleep(0.1)
        ''',
    ),
    "asgi": (
        "an ASGI application: FastAPI, Starlette, Quart …",
        '''
        """Frameworks make such an `app`; name them in requirements.txt."""


        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": f"You asked for {scope['path']}\\n".encode()})
        ''',
    ),
    "wsgi": (
        "a WSGI application: Flask, Django, Bottle …",
        '''
        """Frameworks make such an `app`; name them in requirements.txt."""


        def app(environ, start_response):
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [f"You asked for {environ['PATH_INFO']}\\n".encode()]
        ''',
    ),
}


def files(name: str, model: str, namespace: str = "") -> dict[str, str]:
    """The files of a new function's folder, by name."""
    where = f"\n          namespace: {namespace}" if namespace else ""
    manifest = f"""\
        # minik8s apply -f function.yaml   (or: minik8s func add {name} .)
        apiVersion: {GROUP_VERSION}
        kind: Function
        metadata:
          name: {json.dumps(name) if name.isdigit() else name}{where}
          annotations:
            {SOURCE_ANNOTATION}: .
        spec:
          timeoutSeconds: 30
        """
    return {
        "func.py": textwrap.dedent(MODELS[model][1]).lstrip(),
        "requirements.txt": "# Python packages, one a line, e.g. requests>=2.31\n",
        "function.yaml": textwrap.dedent(manifest),
        ".funcignore": "# What is not sent, as in .gitignore.\nfunction.yaml\ntests/\n",
    }
