"""The MCP server with the SDK's own client: in the process, over stdio, over HTTP with a token."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import anyio
import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from pgolf_sweep.agents.server import TOOLS, make_server

ROOT = Path(__file__).parents[3]
TOKEN = "of-the-test"  # noqa: S105 - of a server that lives as long as the test


def command(served, *options):
    return ["-m", "pgolf_sweep", "mcp", "study", "--by", "ada",
            "--runs", str(served.paths.root.parent), *options]  # fmt: skip


def environment():
    return {**os.environ, "PYTHONPATH": str(ROOT), "PGOLF_MCP_TOKEN": TOKEN}


async def conversation(client):
    """What any transport must carry: tools, a typed answer, an error, a resource, a proposal."""
    listed = await client.list_tools()
    assert [tool.name for tool in listed.tools] == list(TOOLS)
    assert all(tool.description and tool.output_schema for tool in listed.tools)
    plan = await client.call_tool("plan", {})
    assert not plan.is_error
    assert plan.structured_content["study"] == "study"
    assert plan.structured_content["next_step"]
    wrong = await client.call_tool("show", {"trial": 99})
    assert wrong.is_error
    assert "no trial 99" in wrong.content[0].text
    text = await client.read_resource("study://program")
    assert "MODEL_DIM" in text.contents[0].text
    rules = await client.read_resource("study://rules")
    assert "artifact_cap_bytes" in rules.contents[0].text
    sweep = await client.read_resource("study://study")
    assert "method: random" in sweep.contents[0].text
    answer = await client.call_tool("propose", {"knobs": {"MODEL_DIM": 64, "MATRIX_LR": 0.02}})
    (proposal,) = answer.structured_content["proposals"]
    waiting = await client.call_tool("wait", {"proposal": proposal, "seconds": 0})
    assert waiting.structured_content["state"] == "waits"
    return proposal


def test_client_in_the_process(served):
    async def talk():
        async with Client(make_server(served.tools)) as client:
            proposal = await conversation(client)
            await anyio.to_thread.run_sync(served.drive, 1)
            ended = await client.call_tool("wait", {"proposal": proposal, "seconds": 5})
            assert ended.structured_content["state"] == "ended"
            assert ended.structured_content["trial"]["proposer"] == "propose:ada"

    anyio.run(talk)


@pytest.mark.slow
def test_client_over_stdio(served):
    async def talk():
        server = StdioServerParameters(
            command=sys.executable, args=command(served), env=environment(), cwd=ROOT
        )
        async with Client(stdio_client(server)) as client:
            await conversation(client)

    anyio.run(talk)


@contextmanager
def listening(served):
    """A server process on a port of its own, ready to answer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = command(served, "--http", str(port))
    process = subprocess.Popen(
        [sys.executable, *arguments], env=environment(), cwd=ROOT, stderr=subprocess.PIPE
    )
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.slow
def test_client_over_http_needs_the_token(served):
    async def talk(url):
        headers = {"Authorization": f"Bearer {TOKEN}"}
        async with (
            httpx2.AsyncClient(headers=headers, timeout=60) as http,
            Client(streamable_http_client(url, http_client=http)) as client,
        ):
            await conversation(client)

    with listening(served) as url:
        for headers in ({}, {"Authorization": "Bearer wrong"}):
            assert httpx2.post(url, headers=headers, json={}).status_code == 401
        elsewhere = {"Authorization": f"Bearer {TOKEN}", "Host": "evil.example"}
        assert httpx2.post(url, headers=elsewhere, json={}).status_code in {400, 403, 421}
        anyio.run(talk, url)
