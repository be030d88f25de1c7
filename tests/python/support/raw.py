"""A gRPC client that does as it is told: no deadline of its own, no checks, flow control in the test's hands."""

import socket
import ssl
import time
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.settings
from hyperframe.frame import GoAwayFrame


@dataclass
class Stream:
    headers: dict = field(default_factory=dict)
    trailers: dict = field(default_factory=dict)
    data: bytearray = field(default_factory=bytearray)
    reset: int | None = None
    ended: bool = False
    seconds: float | None = None

    @property
    def status(self):
        """`grpc-status`, wherever it came; None: none yet."""
        text = self.trailers.get("grpc-status", self.headers.get("grpc-status"))
        return None if text is None else int(text)

    @property
    def message(self):
        return self.trailers.get("grpc-message", self.headers.get("grpc-message", ""))


def frame(message, compressed=False):
    """One gRPC message in its frame of five bytes."""
    return bytes([compressed]) + len(message).to_bytes(4, "big") + message


class Raw:
    """One HTTP/2 connection. `acknowledge`: give the server's data its flow-control window back."""

    def __init__(self, target, acknowledge=True, context=None, initial_window=None):
        host, port = target.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=10)
        if context is not None:
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname="localhost")
            assert self.socket.selected_alpn_protocol() == "h2"
        self.target = target
        self.acknowledge = acknowledge
        self.streams = {}
        self.closed = False
        self.goaway = None
        self.connection = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_outbound_headers=False, normalize_outbound_headers=False)
        )
        # h2 takes GOAWAY for the end of everything; it is the end of new streams only.
        self.connection._frame_dispatch_table[GoAwayFrame] = self._goes_away
        self.connection.initiate_connection()
        if initial_window is not None:
            self.connection.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: initial_window})
        self.flush()

    def flush(self):
        self.socket.sendall(self.connection.data_to_send())

    def call(self, path, body=None, end=True, **metadata):
        """Opens a stream; `body` bytes go out as they are, in as many frames as the window lets through."""
        return self.call_with(path, [(name.replace("_", "-"), value) for name, value in metadata.items()], body, end)

    def call_with(self, path, metadata, body=None, end=True):
        id = self.connection.get_next_available_stream_id()
        headers = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", self.target)]
        headers += [("te", "trailers"), ("content-type", "application/grpc"), *metadata]
        self.connection.send_headers(id, headers, end_stream=end and body is None)
        self.streams[id] = Stream()
        self._began = time.monotonic()
        self.flush()
        if body is not None:
            self.send(id, body, end)
        return id

    def send(self, id, body, end=True):
        rest = memoryview(body)
        while True:
            if self.streams[id].ended or self.closed:
                return
            room = min(self.connection.local_flow_control_window(id), self.connection.max_outbound_frame_size, len(rest))
            if room == 0 and len(rest):
                if not self.step(5):
                    return
                continue
            last = room == len(rest)
            self.connection.send_data(id, bytes(rest[:room]), end_stream=end and last)
            self.flush()
            rest = rest[room:]
            if last:
                return

    def step(self, seconds=5.0):
        """Reads once and takes in what came; False: nothing came in time, or the connection is closed."""
        if self.closed:
            return False
        self.socket.settimeout(seconds)
        try:
            data = self.socket.recv(65536)
        except (TimeoutError, ssl.SSLWantReadError):
            return False
        except OSError:
            data = b""
        if not data:
            self.closed = True
            return False
        for event in self.connection.receive_data(data):
            self._take(event)
        try:
            self.flush()
        except OSError:
            self.closed = True
        return True

    def _take(self, event):
        stream = self.streams.get(getattr(event, "stream_id", None))
        if stream is None:
            return
        elif isinstance(event, h2.events.ResponseReceived):
            stream.headers = dict(event.headers)
        elif isinstance(event, h2.events.TrailersReceived):
            stream.trailers = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            stream.data += event.data
            if self.acknowledge:
                self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            stream.reset = event.error_code
            self._end(stream)
        elif isinstance(event, h2.events.StreamEnded):
            self._end(stream)

    def _goes_away(self, frame):
        self.goaway = frame
        return [], []

    def give_room(self, bytes):
        """Flow-control window for all streams and the connection; from now on it is given back as data comes."""
        self.acknowledge = True
        self.connection.increment_flow_control_window(bytes)
        for id, stream in self.streams.items():
            if not stream.ended:
                self.connection.increment_flow_control_window(bytes, id)
        self.flush()

    def _end(self, stream):
        if not stream.ended:
            stream.seconds = time.monotonic() - self._began
            stream.ended = True

    def finish(self, id, seconds=10.0):
        """Reads until the stream ends, or the time is over; the stream."""
        end = time.monotonic() + seconds
        stream = self.streams[id]
        while not stream.ended and not self.closed and time.monotonic() < end:
            self.step(max(0.01, end - time.monotonic()))
        return stream

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
