"""What stands between the load and the stub: nginx and the gateway, in several settings."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from bench.bodies import ANSWER
from bench.processes import Process, answers, cores, free_port, listens

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[1]
STREAM_EVENTS = 100
STREAM_GAP_US = 20_000

_PERL = Path("/usr/lib/nginx/modules/ngx_http_perl_module.so")

_NGINX = """
{modules}
daemon off; master_process off; worker_processes 1; pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log crit;
events {{ worker_connections 2048; }}
http {{
  {digest_of}
  access_log off; sendfile on; tcp_nopush on;
  keepalive_requests 100000000;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  client_body_buffer_size 1m; client_max_body_size 8m;
  proxy_http_version 1.1; proxy_set_header Connection "";
  proxy_cache_path {folder}/cache keys_zone=c:64m max_size=1g;
  upstream stub {{ server 127.0.0.1:{stub}; keepalive 128; keepalive_requests 100000000; }}
  upstream paced {{ server 127.0.0.1:{paced}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=1024;
    location / {{ proxy_pass http://stub; }}
    location /paced/ {{ proxy_pass http://paced; proxy_buffering off; }}
    location /cached/ {{
      proxy_pass http://stub; proxy_cache c; proxy_cache_methods POST; proxy_cache_valid 200 1h;
      proxy_cache_key "$request_uri$http_authorization$request_body";
      # The key is written into the file's head, which must fit into the first buffer.
      proxy_buffer_size 512k; proxy_buffers 4 512k; proxy_busy_buffers_size 1m;
      add_header X-Cache $upstream_cache_status;
    }}
    location /digest/ {{
      proxy_pass http://stub; proxy_cache c; proxy_cache_methods POST; proxy_cache_valid 200 1h;
      proxy_cache_key "$request_uri$http_authorization{digest}";
      add_header X-Cache $upstream_cache_status;
    }}
  }}
}}
"""
_DIGEST = """
  perl_set $body_digest 'sub {
    use Digest::MD5;
    return Digest::MD5::md5_hex($_[0]->variable("request_body"));
  }';
"""


@dataclass(slots=True)
class Server:
    """A server under test and where it listens."""

    process: Process
    port: int
    facts: dict[str, float] = field(default_factory=dict)
    """What was measured of it outside the rounds: start-up, memory."""


class Ground:
    """The stub, Redis and everything under test; `close()` ends them all.

    Servers under test share one core, and are measured one at a time; the stub, Redis and the
    load have the others.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        core, self.load_cores = cores()
        self.core = str(core)
        self._all: list[Process] = []
        self.servers: dict[str, Server] = {}
        os.sched_setaffinity(0, {int(each) for each in self.load_cores.split(",")})
        self.stub_port = self._stub("json", str(self._file("answer.json", ANSWER)))
        self.paced_port = self._stub("stream", str(STREAM_EVENTS), str(STREAM_GAP_US))

    def close(self) -> None:
        for process in reversed(self._all):
            process.stop()

    def start(  # noqa: PLR0917
        self,
        name: str,
        command: list[str],
        port: int,
        ready: Any = None,
        env: Mapping[str, str] | None = None,
        deadline_s: float = 20.0,
        cwd: Path | None = None,
    ) -> Server:
        """Start a server under test on its core."""
        process = Process(
            name,
            command,
            self.core,
            ready or listens(port),
            log=self.folder / f"{name}.log",
            env=env,
            deadline_s=deadline_s,
            cwd=cwd,
        )
        self._all.append(process)
        server = Server(process, port)
        server.facts["start_s"] = process.start_s
        server.facts["rss_idle_bytes"] = process.rss_bytes()
        self.servers[name] = server
        return server

    def nginx(self) -> Server:
        """One process as plain proxy, and as a cache whose key is the body."""
        port = free_port()
        binary = _tool("nginx", "nginx-light")
        text = _NGINX.format(
            folder=self.folder,
            port=port,
            stub=self.stub_port,
            paced=self.paced_port,
            modules=f"load_module {_PERL};" if _PERL.exists() else "",
            digest="$body_digest" if _PERL.exists() else "$request_body",
            digest_of=_DIGEST if _PERL.exists() else "",
        )
        config = self._file("nginx.conf", text.encode())
        return self.start(
            "nginx", [binary, "-p", str(self.folder), "-c", str(config), "-e", "stderr"], port
        )

    def floor(self) -> Server:
        """The parts that the gateway is built from, with nothing between them."""
        port = free_port()
        upstream = f"http://127.0.0.1:{self.stub_port}/v1"
        command = [sys.executable, "-m", "bench.floor", str(port), upstream]
        return self.start("floor", command, port, cwd=ROOT)

    def gateway(
        self,
        name: str,
        sections: Mapping[str, Any] | None = None,
        env: Mapping[str, str] | None = None,
        *,
        paced: bool = False,
    ) -> Server:
        """`gateway serve` with everything in memory, but for what `sections` say."""
        port, probes = free_port(), free_port()
        upstream = f"http://127.0.0.1:{self.paced_port if paced else self.stub_port}/v1"
        tree: dict[str, Any] = {
            "server": {"port": port, "probe_port": probes},
            "store": {"url": "memory://"},
            "upstreams": {"openai": {"base_url": upstream, "provider": "openai"}},
            "log": {"level": "warning"},
            # What is beside us plans no markers, and says of no prompt why it was not found; the case
            # that shows what that costs has both on.
            "prompt_cache": {"markers": "off", "causes": False},
        }
        for section, members in (sections or {}).items():
            tree[section] = {**tree.get(section, {}), **members}
        file = self._file(f"{name}.yaml", orjson.dumps(tree))
        return self.start(
            name,
            [sys.executable, "-m", "gateway", "serve", "--config", str(file)],
            port,
            answers(probes, "/readyz"),
            env=_clean(env),
            cwd=ROOT,
        )

    def redis(self) -> str:
        """A Redis beside the load; returns its URL."""
        port = free_port()
        command = [_tool("redis-server", "redis-server"), "--port", str(port)]
        command += ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self._beside("redis", command, port)
        return f"redis://127.0.0.1:{port}/0"

    def restarts(self, name: str, times: int) -> list[float]:
        """Seconds from exec to ready, of fresh processes of the gateway."""
        took = []
        for number in range(times):
            server = self.gateway(f"{name}-{number}")
            took.append(server.process.start_s)
            server.process.stop()
            del self.servers[f"{name}-{number}"]
        return took

    def _stub(self, *arguments: str) -> int:
        binary = self.folder / "stub"
        if not binary.exists():
            compiler = shutil.which("cc") or _tool("gcc", "gcc")
            subprocess.run(
                [compiler, "-O2", "-o", str(binary), str(Path(__file__).with_name("stub.c"))],
                check=True,
            )
        port = free_port()
        self._beside(f"stub-{arguments[0]}", [str(binary), str(port), *arguments], port)
        return port

    def _beside(self, name: str, command: list[str], port: int) -> None:
        log = self.folder / f"{name}.log"
        self._all.append(Process(name, command, self.load_cores, listens(port), log=log))

    def _file(self, name: str, content: bytes) -> Path:
        path = self.folder / name
        path.write_bytes(content)
        return path


def _clean(env: Mapping[str, str] | None) -> dict[str, str]:
    """This environment without what would change the gateway's settings."""
    own = {k: v for k, v in os.environ.items() if not k.upper().startswith(("GATEWAY_", "OTEL_"))}
    return {**own, **(env or {})}


def _tool(name: str, package: str) -> str:
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if found is None:
        raise SystemExit(f"bench: needs {name} (Debian: apt-get install {package})")
    return found
