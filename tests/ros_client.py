"""A ROS 2 client in a process of its own: what a user's program sees of the nodes. Used by test_ros_*.py.

Reads one JSON request a line, answers with one JSON object a line:
  {"do": "call", "service": "/x/reset", "type": "myoloop_msgs/srv/Reset", "fields": {...}}
  {"do": "listen", "topic": "/x/state", "type": "myoloop_msgs/msg/ParticipantState", "count": 50, "sensor": false}
  {"do": "nodes"}
  {"do": "endpoints", "node": "virtual_participant", "namespace": "/x"}
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

import rclpy
from rcl_interfaces.msg import Parameter
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import qos_profile_sensor_data


def kind(name: str) -> Any:
    package, group, last = name.split("/")
    return getattr(importlib.import_module(f"{package}.{group}"), last)


def fill(message: Any, fields: dict[str, Any]) -> Any:
    for name, value in fields.items():
        if isinstance(value, dict):
            fill(getattr(message, name), value)
        else:
            setattr(message, name, value)
    return message


def plain(value: Any) -> Any:
    """A message as JSON-able values."""
    if hasattr(value, "get_fields_and_field_types"):
        return {name: plain(getattr(value, name)) for name in value.get_fields_and_field_types()}
    if isinstance(value, bytes):
        return list(value)
    if hasattr(value, "tolist"):
        return value.tolist()
    return [plain(v) for v in value] if isinstance(value, list) else value


def call(node: Node, request: dict[str, Any]) -> Any:
    service = kind(request["type"])
    client = node.create_client(service, request["service"])
    try:
        if not client.wait_for_service(timeout_sec=request.get("patience", 120.0)):
            return {"error": f"no service {request['service']}"}
        message = fill(service.Request(), request.get("fields", {}))
        for parameter in request.get("parameters", []):  # the one request with a list of messages
            message.parameters.append(fill(Parameter(), parameter))
        future = client.call_async(message)
        rclpy.spin_until_future_complete(node, future, timeout_sec=request.get("patience", 240.0))
        return plain(future.result()) if future.done() else {"error": "no answer"}
    finally:
        node.destroy_client(client)


def listen(node: Node, request: dict[str, Any]) -> Any:
    heard: list[Any] = []
    qos = qos_profile_sensor_data if request.get("sensor") else 200
    subscription = node.create_subscription(
        kind(request["type"]), request["topic"], lambda message: heard.append([time.time(), plain(message)]), qos
    )
    end = time.monotonic() + request.get("patience", 60.0)
    while len(heard) < request["count"] and time.monotonic() < end:
        rclpy.spin_once(node, timeout_sec=0.05)
    node.destroy_subscription(subscription)
    return {"heard": heard}


def endpoints(node: Node, request: dict[str, Any]) -> Any:
    """What the graph holds of a node by now; nothing of one that is not in it yet."""
    me = request["node"], request["namespace"]
    try:
        return {
            "publishers": dict(node.get_publisher_names_and_types_by_node(*me)),
            "subscribers": dict(node.get_subscriber_names_and_types_by_node(*me)),
            "services": dict(node.get_service_names_and_types_by_node(*me)),
            "clients": dict(node.get_client_names_and_types_by_node(*me)),
        }
    except NodeNameNonExistentError:
        return {"publishers": {}, "subscribers": {}, "services": {}, "clients": {}}


def main() -> None:
    rclpy.init()
    node = Node("client")
    for line in sys.stdin:
        request = json.loads(line)
        if request["do"] == "call":
            answer = call(node, request)
        elif request["do"] == "listen":
            answer = listen(node, request)
        elif request["do"] == "endpoints":
            answer = endpoints(node, request)
        else:
            answer = {"nodes": [f"{where.rstrip('/')}/{name}" for name, where in node.get_node_names_and_namespaces()]}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
