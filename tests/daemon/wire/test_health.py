"""The gRPC health service, called through a real server on loopback."""

import asyncio

import grpc.aio
from grpc_health.v1 import health_pb2 as pb
from grpc_health.v1.health_pb2_grpc import HealthStub

from deca_node.daemon.wire.health import Health

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING


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
