"""What the ledger says of mixed traffic, beside what the simulated provider bills for it.

    python -m bench.ledger [REQUESTS]

Four gateways on one Valkey, restarted now and then: hits, streams, shared calls, stale answers, errors,
answers that break off, refused markers, unknown models, embeddings, clients' own markers. `paid` has to
be the provider's bill to the picodollar. `saved` follows a formula, so beside it stands what the same
requests would really have cost without the gateway: the difference is printed, not asserted.
"""

from __future__ import annotations

import asyncio
import sys
import time

from gateway.savingscmd.table import as_table
from gateway.telemetry.logs import setup_logging
from tests.helpers.ledger_traffic import Fleet, ToldTime, Traffic, directly
from tests.helpers.redis_servers import RedisServer, binary

REPLICAS = 4
RESTARTS = 6
_STALE = {"ttl_s": 40, "stale_while_revalidate_s": 600}


async def run(url: str, requests: int, seed: int) -> bool:
    """Print it; False when the two differ."""
    began = time.monotonic()
    quiet = {"telemetry": {"traces": "off"}, "cache": _STALE}
    async with Fleet(url, REPLICAS, ToldTime(), **quiet) as fleet:
        await fleet.run(Traffic(seed), requests, restarts=RESTARTS)
        told, seen, bill = await fleet.savings("cause"), fleet.seen, fleet.sim.meter
    took_s = time.monotonic() - began
    direct = directly(seen.asked)
    total = told["total"]
    paid, without = int(total["paid_pd"]), int(total["paid_pd"]) + int(total["saved_pd"])
    print(f"{requests:,} requests, {REPLICAS} gateways, {seen.restarts} restarts, {took_s:.1f} s")
    print(f"statuses {seen.statuses}, cache {seen.caches}, broken off {bill.cut}\n")
    print(as_table(told))
    print(f"paid, by the ledger      ${paid / 1e12:.12f}")
    print(f"billed by the provider   ${bill.paid_pd / 1e12:.12f}")
    print(f"difference               {paid - bill.paid_pd} picodollars")
    print(f"without us, by formula   ${without / 1e12:.6f}")
    print(f"without us, simulated    ${direct.paid_pd / 1e12:.6f}")
    print(f"difference               {without / direct.paid_pd - 1:+.2%}")
    saved = int(total["saved_pd"])
    true = direct.paid_pd - bill.paid_pd
    print(f"saved: by formula ${saved / 1e12:.6f}, simulated ${true / 1e12:.6f}")
    return paid == bill.paid_pd


def main() -> int:
    setup_logging("error", "json")
    executable = binary("valkey")
    assert executable is not None
    server = RedisServer(executable, persist=True)
    server.start()
    try:
        requests = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
        return 0 if asyncio.run(run(server.url, requests, 20261122)) else 1
    finally:
        server.close()


if __name__ == "__main__":
    sys.exit(main())
