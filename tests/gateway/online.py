"""online.py URL USER_ID -- COMMAND...: runs a command while a user is online, who comes back when disconnected."""

import subprocess
import sys
import threading

from websockets.exceptions import ConnectionClosed

from tokens import open_socket

url, user, command = sys.argv[1], sys.argv[2], sys.argv[4:]
is_done = threading.Event()
is_online = threading.Event()


def stay():
    while not is_done.is_set():
        with open_socket(url, "somebody", user) as socket:
            is_online.set()
            try:
                while not is_done.is_set():
                    try:
                        socket.recv(timeout=0.2)
                    except TimeoutError:
                        pass
            except ConnectionClosed:
                pass


thread = threading.Thread(target=stay)
thread.start()
is_online.wait(30)
try:
    status = subprocess.run(command).returncode
finally:
    is_done.set()
    thread.join()
sys.exit(status)
