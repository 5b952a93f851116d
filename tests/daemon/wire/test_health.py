"""The gRPC health service, called through a real server on loopback."""

import asyncio
import resource
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthStub

from deca_node.daemon.settings.address import Address
from deca_node.daemon.wire.endpoint import Endpoint
from deca_node.daemon.wire.health import SERVICE, Health
from deca_node.process.inherited import raise_the_limit_of_open_files
from tests.patience import PATIENCE_SECONDS

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING
STRANGERS = 1200


def test_callers_and_watchers_get_the_answer_that_was_set() -> None:
    async def life() -> None:
        health, server = Health("deca.v1.Exchange"), grpc.aio.server()
        server.add_generic_rpc_handlers((health.handlers(),))
        port = server.add_insecure_port("127.0.0.1:0")
        await health.say(False)
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = HealthStub(channel)
            watch = stub.Watch(pb.HealthCheckRequest())
            assert (await watch.read()).status == NOT_SERVING
            assert (await stub.Check(pb.HealthCheckRequest(service="deca.v1.Exchange"))).status == NOT_SERVING
            await health.say(True)
            assert (await watch.read()).status == SERVING
            assert (await stub.Check(pb.HealthCheckRequest())).status == SERVING
        await server.stop(0)

    asyncio.run(life())


def test_health_is_told_beside_connections_that_never_begin() -> None:
    """More than a thousand strangers, each with half of HTTP/2's preface."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 6 * STRANGERS:
        pytest.skip("this system lets a process open too few files")
    raise_the_limit_of_open_files()

    async def scene() -> None:
        endpoint, health = Endpoint(Address("127.0.0.1", 0)), Health()
        endpoint.add(health.handlers())
        await endpoint.start()
        await health.say(serving=True)
        port = endpoint.address.port
        strangers = [await asyncio.open_connection("127.0.0.1", port) for _ in range(STRANGERS)]
        for _, writer in strangers:
            writer.write(b"PRI * HTTP/2.0\r\n")
        async with asyncio.timeout(PATIENCE_SECONDS), endpoint.channel("", endpoint.address) as channel:
            check: Any = channel.unary_unary(f"/{SERVICE}/Check")
            answer = pb.HealthCheckResponse.FromString(await check(b""))
            assert answer.status == pb.HealthCheckResponse.SERVING
        for _, writer in strangers:
            writer.transport.abort()
        await endpoint.stop()

    try:
        asyncio.run(scene())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
