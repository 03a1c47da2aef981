"""A stand-in for S3 in one container: moto's server with the bucket `lorat`."""

import signal
import threading
from urllib.request import Request, urlopen

from moto.server import ThreadedMotoServer

stopped = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: stopped.set())
server = ThreadedMotoServer("0.0.0.0", 9000, verbose=False)
server.start()
urlopen(Request("http://127.0.0.1:9000/lorat", method="PUT"))
stopped.wait()
server.stop()
