"""A server made with the Python SDK: one tool that gives its message back, over Streamable HTTP. Says on stdout where it
listens."""

import socket

import uvicorn
from mcp.server.mcpserver import MCPServer

server = MCPServer("echo", log_level="ERROR")


@server.tool()
def echo(message: str) -> str:
    """gives the message back"""
    return message


# asyncio turns delays off only for a socket that says which protocol it is.
listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0))
listener.listen(1024)
print(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp", flush=True)
config = uvicorn.Config(server.streamable_http_app(), log_level="error", access_log=False)
uvicorn.Server(config).run(sockets=[listener])
