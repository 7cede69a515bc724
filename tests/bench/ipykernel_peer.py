"""A warm kernel of Jupyter through jupyter_client, which measures itself so that no pipe is in its figures.

Run by the interpreter in which ipykernel is installed. Each line on stdin is {"calls", "pause"}; the answer is a line with
the seconds of each call, from sending to reply and idle.
"""

import json
import sys
import time

from jupyter_client.manager import start_new_kernel


def call(client, code):
    asked = client.execute(code)
    while True:
        message = client.get_iopub_msg(timeout=30)
        if message["parent_header"].get("msg_id") == asked and message["content"].get("execution_state") == "idle":
            break
    reply = client.get_shell_msg(timeout=30)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(reply["content"])


def main():
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for _ in range(5):
            call(client, "pass")
        print(json.dumps("ready"), flush=True)
        for line in sys.stdin:
            asked = json.loads(line)
            seconds = []
            for _ in range(asked["calls"]):
                time.sleep(asked["pause"])
                start = time.perf_counter()
                call(client, "pass")
                seconds.append(time.perf_counter() - start)
            print(json.dumps(seconds), flush=True)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


if __name__ == "__main__":
    main()
