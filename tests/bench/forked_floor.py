"""A hand-made forked interpreter, the floor under `run_python`: no sandbox, no limits, no log.

Run as a program it listens on the Unix socket that it is given, forks for each request, runs the code, and answers with
what it printed and how it ended.
"""

import io
import os
import socket
import struct
import sys


def serve(connection):
    while header := connection.recv(4, socket.MSG_WAITALL):
        code = connection.recv(struct.unpack("!I", header)[0], socket.MSG_WAITALL)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.dup2(writer, 1)
            sys.stdout = io.TextIOWrapper(io.FileIO(1, "w"))
            exec(compile(code, "<code>", "exec"), {"__name__": "__main__"})
            sys.stdout.flush()
            os._exit(0)
        os.close(writer)
        output = b""
        while more := os.read(reader, 65536):
            output += more
        os.close(reader)
        status = os.waitpid(child, 0)[1]
        connection.sendall(struct.pack("!iI", os.waitstatus_to_exitcode(status), len(output)) + output)


def main():
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(sys.argv[1])
        listening.listen(1)
        print("ready", flush=True)
        connection, _ = listening.accept()
        with connection:
            serve(connection)


if __name__ == "__main__":
    main()
