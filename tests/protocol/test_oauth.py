"""An independent client (PyPI `mcp`) finds out from the server's metadata (RFC 9728) whom to ask, gets a token there as OAuth
2.1 has it, and works with it. The issuer is small and real: discovery, registration, PKCE, signed tokens, keys by JWKS."""

import base64
import hashlib
import json
import os
import secrets
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import anyio
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from mcp import Client
from mcp.client.auth import AuthorizationCodeResult, OAuthClientProvider
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp.shared.auth import OAuthClientMetadata

BACK = "http://127.0.0.1:9/back"


class Issuer:
    def __init__(self):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.codes, self.registered, self.given, self.asked = {}, [], [], []
        # What it grants first, whatever it is asked for.
        self.grants = []
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_args):
                pass

            def do_GET(self):
                issuer.get(self)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"])).decode()
                issuer.post(self, body)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def answer(self, handler, value, status=200):
        body = json.dumps(value).encode()
        handler.send_response(status)
        handler.send_header("content-type", "application/json")
        handler.send_header("content-length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    def get(self, handler):
        where = urllib.parse.urlsplit(handler.path)
        self.asked.append(where.path)
        if where.path in ("/.well-known/oauth-authorization-server", "/.well-known/openid-configuration"):
            at = {f"{name}_endpoint": f"{self.url}/{name}" for name in ("authorization", "token", "registration")}
            supported = {"response_types_supported": ["code"], "code_challenge_methods_supported": ["S256"]}
            self.answer(handler, {"issuer": self.url, "jwks_uri": f"{self.url}/jwks", **at, **supported})
        elif where.path == "/jwks":
            key = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(self.key.public_key()))
            self.answer(handler, {"keys": [{**key, "kid": "1", "use": "sig", "alg": "ES256"}]})
        elif where.path == "/authorization":
            query = dict(urllib.parse.parse_qsl(where.query))
            assert query["code_challenge_method"] == "S256" and query["client_id"] in self.registered
            code = secrets.token_urlsafe(16)
            self.codes[code] = query
            handler.send_response(302)
            handler.send_header("location", f"{query['redirect_uri']}?code={code}&state={query['state']}")
            handler.send_header("content-length", "0")
            handler.end_headers()
        else:
            self.answer(handler, {}, 404)

    def post(self, handler, body):
        if handler.path == "/registration":
            self.registered.append(f"client-{len(self.registered)}")
            asked = {**json.loads(body), "token_endpoint_auth_method": "none"}
            self.answer(handler, {**asked, "client_id": self.registered[-1]}, 201)
            return
        form = dict(urllib.parse.parse_qsl(body))
        query = self.codes.pop(form["code"])
        shown = base64.urlsafe_b64encode(hashlib.sha256(form["code_verifier"].encode()).digest()).rstrip(b"=").decode()
        assert shown == query["code_challenge"] and form["redirect_uri"] == query["redirect_uri"]
        self.given.append(query)
        scope = self.grants.pop(0) if self.grants else query["scope"]
        token = self.token(form["resource"], scope=scope)
        self.answer(handler, {"access_token": token, "token_type": "Bearer", "expires_in": 600, "scope": scope})

    def token(self, audience, subject="ann", **claims):
        now = int(time.time())
        claims = {"iss": self.url, "sub": subject, "aud": audience, "iat": now, "exp": now + 600, **claims}
        return jwt.encode(claims, self.key, algorithm="ES256", headers={"kid": "1"})


class Kept:
    """What the client keeps."""

    def __init__(self):
        self.tokens = self.client = None

    async def get_tokens(self):
        return self.tokens

    async def set_tokens(self, tokens):
        self.tokens = tokens

    async def get_client_info(self):
        return self.client

    async def set_client_info(self, client_info):
        self.client = client_info


class Browser:
    """The user, who says yes to everything."""

    async def open(self, address):
        class Stay(urllib.request.HTTPRedirectHandler):
            def redirect_request(self, *_args):
                return None

        with pytest.raises(urllib.error.HTTPError) as sent_back:
            await anyio.to_thread.run_sync(urllib.request.build_opener(Stay).open, address)
        location = sent_back.value.headers["location"]
        assert location.startswith(BACK)
        self.query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(location).query))

    async def came_back(self):
        return AuthorizationCodeResult(code=self.query["code"], state=self.query["state"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def issuer():
    return Issuer()


@pytest.fixture(scope="module")
def server(issuer):
    # Its own address is what tokens are for, so it is known before.
    port = free_port()
    resource = f"http://127.0.0.1:{port}/mcp"
    with tempfile.TemporaryDirectory(prefix="codegen-mcp-") as state_dir:
        command = [os.environ["COORDINATOR"], "--state-dir", state_dir, "--grpc-port", "0", "--oauth-issuer", issuer.url]
        command += ["--oauth-audience", resource, "serve", "--http", f"127.0.0.1:{port}"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        said = process.stderr.readline()
        assert "http://" in said, said
        yield resource
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) == 0


def text(result):
    return "\n".join(block.text for block in result.content if block.type == "text")


def test_a_client_that_knows_only_the_address_gets_a_token_and_works(server, issuer):
    async def flow():
        browser, kept = Browser(), Kept()
        metadata = OAuthClientMetadata(client_name="test", redirect_uris=[BACK])
        provider = OAuthClientProvider(server, metadata, kept, browser.open, browser.came_back)
        async with create_mcp_http_client(auth=provider) as http:
            async with Client(streamable_http_client(server, http_client=http), read_timeout_seconds=30) as client:
                handle = (await client.call_tool("session_create", {})).structured_content["session_id"]
                ran = await client.call_tool("run_python", {"session_id": handle, "code": "print(6 * 7)"})
                assert "42" in text(ran), text(ran)
        assert issuer.registered and "/jwks" in issuer.asked
        (asked,) = issuer.given
        assert asked["resource"] == server, "the token was asked for this server and no other"
        assert "codegen:tools" in asked["scope"].split(), "the metadata say which scopes there are"
        # Another connection with what was kept asks nobody.
        async with create_mcp_http_client(auth=provider) as http:
            async with Client(streamable_http_client(server, http_client=http), read_timeout_seconds=30) as client:
                again = await client.call_tool("session_info", {"session_id": handle})
                assert not again.is_error, text(again)
        assert len(issuer.given) == 1

    anyio.run(flow)


def test_a_client_that_was_granted_too_little_asks_once_for_what_it_has_and_what_it_needs(server, issuer):
    async def flow():
        browser, before = Browser(), len(issuer.given)
        issuer.grants = ["codegen:tools"]
        metadata = OAuthClientMetadata(client_name="test", redirect_uris=[BACK])
        provider = OAuthClientProvider(server, metadata, Kept(), browser.open, browser.came_back)
        async with create_mcp_http_client(auth=provider) as http:
            async with Client(streamable_http_client(server, http_client=http), read_timeout_seconds=30) as client:
                handle = (await client.call_tool("session_create", {})).structured_content["session_id"]
                for number in range(2):
                    ran = await client.call_tool("run_python", {"session_id": handle, "code": f"print(6 * {number})"})
                    assert str(6 * number) in text(ran), text(ran)
                    assert not (await client.call_tool("session_info", {"session_id": handle})).is_error
        asked = [set(query["scope"].split()) for query in issuer.given[before:]]
        assert len(asked) == 2 and asked[1] >= {"codegen:tools", "codegen:sessions"}, asked

    anyio.run(flow)


def post(server, token):
    headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
    headers |= {"authorization": f"Bearer {token}"} if token else {}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "ping"}).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(server, body, headers)) as answer:
            return answer.status, ""
    except urllib.error.HTTPError as refused:
        return refused.code, refused.headers.get("www-authenticate", "")


def test_no_other_token_of_the_issuer_is_let_in(server, issuer):
    others = {
        "none at all": "",
        "for another server": issuer.token("http://127.0.0.1:1/mcp", scope="codegen:tools"),
        "of yesterday": issuer.token(server, scope="codegen:tools", exp=int(time.time()) - 86_400),
        "of another issuer": issuer.token(server, scope="codegen:tools", iss="http://127.0.0.1:1"),
        "signed by another key": Issuer().token(server, scope="codegen:tools", iss=issuer.url),
    }
    for what, token in others.items():
        status, challenge = post(server, token)
        where = server.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")
        assert status == 401 and f'resource_metadata="{where}"' in challenge, (what, status, challenge)
    with urllib.request.urlopen(server.replace("/mcp", "/.well-known/oauth-protected-resource/mcp")) as answer:
        metadata = json.load(answer)
    assert metadata["resource"] == server and metadata["authorization_servers"] == [issuer.url]
