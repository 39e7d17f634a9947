from http import HTTPStatus

from serverless import Invoke, Request, Response


def action(req: Request) -> Response | Invoke:
    if req.param("text"):
        return Invoke("countWords", params={"text": req.param("text")})
    return Response("nothing to count", content_type="text/plain", http_status=HTTPStatus.BAD_REQUEST)
