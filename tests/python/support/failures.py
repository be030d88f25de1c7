"""Reads all that an error carries."""

from dataclasses import dataclass, field

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from larder.v1 import error_pb2

KINDS = {
    "larder.v1.Error": error_pb2.Error,
    "google.rpc.ErrorInfo": error_details_pb2.ErrorInfo,
    "google.rpc.RetryInfo": error_details_pb2.RetryInfo,
    "google.rpc.QuotaFailure": error_details_pb2.QuotaFailure,
    "google.rpc.BadRequest": error_details_pb2.BadRequest,
}


@dataclass
class Failure:
    code: grpc.StatusCode
    message: str
    error: error_pb2.Error
    info: error_details_pb2.ErrorInfo
    trailers: dict
    retry: error_details_pb2.RetryInfo | None = None
    quota: error_details_pb2.QuotaFailure | None = None
    bad_request: error_details_pb2.BadRequest | None = None
    order: list = field(default_factory=list)

    @property
    def pushback(self):
        """Milliseconds; None: not said."""
        text = self.trailers.get("grpc-retry-pushback-ms")
        return None if text is None else int(text)


def failure_of(error):
    """The failure behind an RpcError. Asserts what holds for every error of Larder."""
    status = rpc_status.from_call(error)
    assert status is not None, f"an error without details: {error}"
    details, order = {}, []
    for entry in status.details:
        name = entry.type_url.removeprefix("type.googleapis.com/")
        message = KINDS[name]()
        assert entry.Unpack(message)
        details[name] = message
        order.append(name)
    assert order[:2] == ["larder.v1.Error", "google.rpc.ErrorInfo"], order
    failure = Failure(
        code=error.code(),
        message=error.details(),
        error=details["larder.v1.Error"],
        info=details["google.rpc.ErrorInfo"],
        trailers=dict(error.trailing_metadata()),
        retry=details.get("google.rpc.RetryInfo"),
        quota=details.get("google.rpc.QuotaFailure"),
        bad_request=details.get("google.rpc.BadRequest"),
        order=order,
    )
    _consistent(failure, status)
    return failure


def _consistent(failure, status):
    number = failure.code.value[0]
    assert status.code == number == failure.error.code
    assert failure.message == status.message == failure.error.message != ""
    assert failure.info.domain == "larder.dev"
    assert failure.info.reason == failure.error.reason != ""
    assert dict(failure.info.metadata) == dict(failure.error.metadata)
    assert failure.error.user_error_code > 0
    assert (failure.pushback or 0) == failure.error.retry_after_ms
    has_wait = failure.pushback is not None and failure.pushback > 0
    assert (failure.retry is not None) == has_wait
    if has_wait:
        # The trailer is the delay in whole milliseconds, rounded up: who obeys is never early.
        delay = failure.retry.retry_delay.ToMicroseconds()
        assert (failure.pushback - 1) * 1000 <= delay <= failure.pushback * 1000


def refused(call, *arguments, **options):
    """Makes the call, which must fail; its failure. Streams are read to their end."""
    try:
        answer = call(*arguments, **options)
        if isinstance(answer, grpc.Call):
            answer = list(answer)
    except grpc.RpcError as error:
        return failure_of(error)
    raise AssertionError(f"was answered: {str(answer)[:200]}")


def expect(failure, code, reason):
    assert (failure.code.name, failure.error.reason) == (code, reason), failure
    return failure
