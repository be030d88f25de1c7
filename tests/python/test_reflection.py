"""Server reflection: what a generic client finds out about the contract."""

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from support.replica import channel

# grpcio-reflection ships the messages of v1alpha only; those of v1 are the same on the wire.
V1 = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
V1ALPHA = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


def ask(stock, **request):
    call = stock.stream_stream(
        V1, reflection_pb2.ServerReflectionRequest.SerializeToString, reflection_pb2.ServerReflectionResponse.FromString
    )
    (answer,) = call(iter([reflection_pb2.ServerReflectionRequest(**request)]))
    return answer


def test_it_lists_the_services_without_a_token(stock):
    services = {service.name for service in ask(stock, list_services="").list_services_response.service}
    assert {"larder.v1.Cache", "larder.v1.Accounts", "grpc.health.v1.Health"} <= services


def test_it_gives_the_files_of_a_symbol(stock):
    from google.protobuf import descriptor_pb2

    answer = ask(stock, file_containing_symbol="larder.v1.Cache")
    files = [descriptor_pb2.FileDescriptorProto.FromString(raw) for raw in answer.file_descriptor_response.file_descriptor_proto]
    methods = [method.name for file in files for service in file.service if service.name == "Cache" for method in service.method]
    from larder.v1 import cache_pb2

    assert methods == [method.name for method in cache_pb2.DESCRIPTOR.services_by_name["Cache"].methods]


def test_an_unknown_symbol_is_not_found(stock):
    """tonic-reflection ends the stream with it, where others put it into the answer."""
    with pytest.raises(grpc.RpcError) as caught:
        ask(stock, file_containing_symbol="larder.v1.Nonsense")
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_generic_client_can_call_with_nothing_but_reflection(replica):
    with channel(replica) as opened:
        database = ProtoReflectionDescriptorDatabase(opened)
        pool = DescriptorPool(database)
        service = pool.FindServiceByName("larder.v1.Cache")
        store = service.FindMethodByName("Store")
        assert [field.name for field in store.input_type.fields][:3] == ["key", "val", "account_token"]
        assert {entry.name for entry in pool.FindServiceByName("larder.v1.Cache").methods} >= {"Pipeline", "Dump", "Clear"}
        assert set(database.get_services()) >= {"larder.v1.Cache"}


def test_the_tutorials_service_is_listed_where_it_is_served(stock):
    services = {service.name for service in ask(stock, list_services="").list_services_response.service}
    assert {"rpc.Cache", "rpc.Accounts"} <= services


@pytest.mark.parametrize("path", [V1, V1ALPHA])
def test_it_answers_several_questions_on_one_stream(stock, path):
    call = stock.stream_stream(
        path, reflection_pb2.ServerReflectionRequest.SerializeToString, reflection_pb2.ServerReflectionResponse.FromString
    )
    questions = [reflection_pb2.ServerReflectionRequest(list_services="")] * 3
    assert len(list(call(iter(questions)))) == 3
