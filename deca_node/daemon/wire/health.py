"""The standard gRPC health service (grpc.health.v1), for orchestrators that probe a node with it."""

from typing import Any

import grpc
from grpc_health.v1 import health
from grpc_health.v1 import health_pb2 as pb

SERVICE = "grpc.health.v1.Health"


class Health:
    """Tells whether the whole server (the empty service name) and each named service serve."""

    def __init__(self, *services: str) -> None:
        self._services = ("", *services)
        # The published type stubs have only the older, threaded servicer.
        self._servicer: Any = getattr(health, "aio").HealthServicer()  # noqa: B009

    def handlers(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The handlers to add to the server before it starts."""
        request, response = pb.HealthCheckRequest.FromString, pb.HealthCheckResponse.SerializeToString
        check = grpc.unary_unary_rpc_method_handler(self._servicer.Check, request, response)
        watch = grpc.unary_stream_rpc_method_handler(self._servicer.Watch, request, response)
        return grpc.method_handlers_generic_handler(SERVICE, {"Check": check, "Watch": watch})

    async def say(self, serving: bool) -> None:
        """Set the answer. Callers that watch are told of a change."""
        status = pb.HealthCheckResponse.SERVING if serving else pb.HealthCheckResponse.NOT_SERVING
        for service in self._services:
            await self._servicer.set(service, status)
