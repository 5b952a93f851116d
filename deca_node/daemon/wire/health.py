"""The standard gRPC health service (grpc.health.v1), for callers that probe that way."""

from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_health.v1 import health_pb2 as pb

SERVICE = "grpc.health.v1.Health"


class Health:
    """Says of the whole server (the empty service name) and of each named service whether it serves."""

    def __init__(self, *services: str) -> None:
        self._services = ("", *services)
        # The published type stubs know the older, threaded servicer only.
        self._servicer: Any = getattr(health, "aio").HealthServicer()  # noqa: B009

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """To be added to the server before it starts."""
        request, response = pb.HealthCheckRequest.FromString, pb.HealthCheckResponse.SerializeToString
        check = grpc.unary_unary_rpc_method_handler(self._servicer.Check, request, response)
        watch = grpc.unary_stream_rpc_method_handler(self._servicer.Watch, request, response)
        return grpc.method_handlers_generic_handler(SERVICE, {"Check": check, "Watch": watch})

    async def say(self, serving: bool) -> None:
        """The answer from now on; those who watch hear of a change."""
        status = pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self._servicer.set(service, status)
